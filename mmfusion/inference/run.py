"""``predict(config)``: from a folder of images or a table to a CSV of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.data import DatasetConfig
from mmfusion.data.memory import DataSource
from mmfusion.data.notices import InputNotices
from mmfusion.data.read import PART
from mmfusion.files import sole_writer
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.columns import column_lines, unseen_modalities, warn_of
from mmfusion.inference.config import PredictConfig
from mmfusion.inference.contents import contents_for, template_of, with_template
from mmfusion.inference.description import how_it_predicts
from mmfusion.inference.grouping import joined
from mmfusion.inference.predictions_csv import prediction_writer
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.processes import first_alone, processes, rank_of_this, shared_stream
from mmfusion.inference.reading import stream_unlabelled
from mmfusion.inference.rows import AllRows, none_readable
from mmfusion.inference.stream import Prediction
from mmfusion.progress import progress

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predicted:
    """Result of ``mmfusion predict``.

    Attributes:
        path: The CSV file.
        rows: Number of rows.
        unreadable: Number of rows that could not be read; the column ``error`` has the reason.
        reason: Reason of the first of them.
        rank: Rank of this process under ``torchrun``; only rank 0 counts and writes.
    """

    path: Path
    rows: int
    unreadable: int
    reason: str | None = None
    rank: int = 0

    @property
    def failure(self) -> str:
        """Why the command fails: every row has an error; else empty."""
        return none_readable(self.rows, self.unreadable, self.reason)

    def frame(self) -> pd.DataFrame:
        """The rows of the file."""
        import pandas as pd

        texts = dict.fromkeys(("id", "label", "inputs", "error"), object)
        # a class may be named None: only empty cells are missing
        return pd.read_csv(self.path, dtype=texts, keep_default_na=False, na_values=[""])

    def summary(self) -> str:
        """Rows and file in one line; empty outside the first process."""
        if self.rank:
            return ""
        failed = f"; {self.unreadable:,} could not be read (see the column error)" if self.unreadable else ""
        failed += f"; the first: {self.reason}" if self.reason else ""
        return f"{self.rows:,} rows in {self.path}{failed}"


def open_predictor(names: Sequence[str], **how: Any) -> Predictor:
    """Load a trained model, or several as an ensemble, for a command, in the machine's preferred memory format."""
    return Predictor.from_pretrained(names, channels_last=resolve_channels_last(None), **how)


def predict(config: PredictConfig) -> Predicted:
    """Predict a folder of images or a table and write a CSV; processes of ``torchrun`` share the rows."""
    with processes(), redirect_stdout(StringIO()) if rank_of_this() else nullcontext():
        return _predict(config)


def _predict(c: PredictConfig) -> Predicted:
    with first_alone() if c.engine == "onnx" else nullcontext():  # the model may have to be exported
        how: dict[str, Any] = dict(calibration=c.calibration, engine=c.engine, compile=c.compile)
        predictor = open_predictor(c.model, calibrated=c.calibrated, **how)
    print(f"predicting {c.data} with {predictor.name}{how_it_predicts(predictor, c.tta)}")
    pooling = None
    if c.by is not None:
        pooling = c.pooling or predictor.decisions.by_group
        print(f"one row per group, {'mean' if pooling == 'mean' else 'largest'} probability of its rows")
    names = ("dataset", "tta", "batch_size", "escape_formulas", "refuse_unfamiliar")
    return predict_path(predictor, c.data, c.output, pooling=pooling, **{name: getattr(c, name) for name in names})


@sole_writer
def predict_path(
    predictor: Predictor,
    data: DataSource,
    output: str | Path,
    *,
    dataset: DatasetConfig | None = None,
    tta: bool | None = None,
    batch_size: int = 64,
    escape_formulas: bool = False,
    pooling: str | None = None,
    refuse_unfamiliar: float | None = None,
) -> Predicted:
    """Predict a folder of images or a table and write ``id, label, probability, p_<class>..., inputs, error``.


    Rows keep their order; unreadable ones have a reason under ``error``. Warnings count words that the model does not
    know and truncated texts. Arguments are those of :class:`~mmfusion.inference.config.PredictConfig`; with
    ``pooling`` there is one row per group.

    Raises:
        FileNotFoundError: The data do not exist.
        ValueError: The data cannot be read, e.g. a column is missing.
    """
    if pooling is not None:
        predictor.task.need_one_class("by group")
    dataset, count, unreadable, reason = dataset or predictor.dataset, 0, 0, None
    predictor = with_template(predictor, dataset)
    judged: set[str] = set()
    how: dict[str, Any] = {"tta": tta, "batch_size": batch_size, "refuse_unfamiliar": refuse_unfamiliar}
    notices = [InputNotices() for _ in predictor.members]
    rank = rank_of_this()
    bar = progress("Predicting", None, shown=not rank)
    parts: list[Prediction] = []
    ids: list[str] = []
    groups: list[str | None] = []
    columns: dict[str, Any] = {"notes": predictor.note_columns, "escape_formulas": escape_formulas}
    writer: Any = nullcontext() if rank else prediction_writer(output, predictor.labels, task=predictor.task, **columns)
    with writer as write, bar:
        for cases in stream_unlabelled(data, dataset, predictor.labels, template_of(predictor)):
            if not count and not rank:
                print(contents_for(predictor, cases).line("rows" if len(cases) < PART else "first rows"))
                warn_of(column_lines([each.processor for each in predictor.members], dataset, cases.metadata))
            rows = [AllRows(cases, member.processor, refuse_empty=True) for member in predictor.members]
            for part in shared_stream(predictor, rows, **how):
                if pooling is None:
                    write(rows[0].ids[part.rows], part, predictor.notes(part))
                else:
                    parts.append(part)
                judged.update(part.inputs)
                unreadable += sum(error is not None for error in part.errors)
                reason = reason or next(filter(None, part.errors), None)
                bar.update(len(part.errors))
            count += len(cases)
            if pooling is not None:
                ids += rows[0].ids
                groups += cases.frame["group"].tolist()
            for noted, each in zip(notices, rows, strict=True) if not rank else ():
                noted.update(each.notices())
        if pooling is not None and count and not rank:
            ids, whole = _by_group(parts, ids, groups, pooling)
            write(ids, whole, predictor.notes(whole))
            count, unreadable = len(ids), sum(error is not None for error in whole.errors)
    if not rank:
        warn_of([*unseen_modalities(predictor.members, judged), *(line for noted in notices for line in noted.lines())])
    return Predicted(Path(output), count, unreadable, reason, rank)


def _by_group(
    parts: Sequence[Prediction], ids: Sequence[str], groups: Sequence[str | None], pooling: str
) -> tuple[list[str], Prediction]:
    """Names and predictions of the groups; ValueError if no row has a group."""
    if not any(group is not None for group in groups):
        raise ValueError("by group: no row has a group; set the column of patients or lesions, dataset.group_column.")
    return joined(parts, ids, groups, pooling)
