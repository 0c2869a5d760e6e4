"""``predict(config)``: from a folder of images or a table to a CSV of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

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
from mmfusion.inference.reading import stream_unlabelled
from mmfusion.inference.rows import AllRows
from mmfusion.inference.stream import Prediction

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predicted:
    """What a prediction wrote.

    Attributes:
        path: The CSV file.
        rows: How many rows it has.
        unreadable: How many of them could not be read, and hold their reason under ``error``.
        reason: That of the first of them.
    """

    path: Path
    rows: int
    unreadable: int
    reason: str | None = None

    def frame(self) -> pd.DataFrame:
        """The file's rows."""
        import pandas as pd

        texts = dict.fromkeys(("id", "label", "inputs", "error"), object)
        # a class may be called None: only an empty cell is missing
        return pd.read_csv(self.path, dtype=texts, keep_default_na=False, na_values=[""])

    def summary(self) -> str:
        """Rows and file, in one line."""
        failed = f"; {self.unreadable:,} could not be read, see the column error" if self.unreadable else ""
        failed += f"; the first: {self.reason}" if self.reason else ""
        return f"{self.rows:,} rows in {self.path}{failed}"


def open_predictor(names: Sequence[str], **how: Any) -> Predictor:
    """A trained model, or several as an ensemble, as commands run it: in the memory format that the machine likes."""
    return Predictor.from_pretrained(names, channels_last=resolve_channels_last(None), **how)


def predict(config: PredictConfig) -> Predicted:
    """Predict a folder of images or a table, and write a CSV."""
    c, predictor = config, open_predictor(config.model, calibrated=config.calibrated, calibration=config.calibration)
    print(f"predicting {c.data} with {predictor.name}{how_it_predicts(predictor, c.tta)}")
    pooling = None
    if c.by is not None:
        pooling = c.pooling or predictor.decisions.by_group
        print(f"one row for each group, {'mean' if pooling == 'mean' else 'largest'} probability of its rows")
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
    """Diagnose a folder of images or a table, and write ``id, label, probability, p_<class>..., inputs,
    error``.

    Rows keep their order; one that cannot be read has its reason under ``error``. A warning at the end counts words
    that the model does not know, and texts that were cut. The arguments are those of
    :class:`~mmfusion.inference.config.PredictConfig`; with a ``pooling`` there is one row for each group.

    Raises:
        FileNotFoundError: There are no such data.
        ValueError: The data as a whole cannot be read, e.g. a column is missing.
    """
    if pooling is not None:
        predictor.task.need_one_class("by group")
    dataset, count, unreadable, reason = dataset or predictor.dataset, 0, 0, None
    predictor = with_template(predictor, dataset)
    judged: set[str] = set()
    how: dict[str, Any] = {"tta": tta, "batch_size": batch_size, "refuse_unfamiliar": refuse_unfamiliar}
    notices = [InputNotices() for _ in predictor.members]
    bar = tqdm(desc="Predicting", unit="row", disable=None)
    parts: list[Prediction] = []
    ids: list[str] = []
    groups: list[str | None] = []
    columns: dict[str, Any] = {"notes": predictor.note_columns, "escape_formulas": escape_formulas}
    with prediction_writer(output, predictor.labels, task=predictor.task, **columns) as write, bar:
        for cases in stream_unlabelled(data, dataset, predictor.labels, template_of(predictor)):
            if not count:
                print(contents_for(predictor, cases).line("rows" if len(cases) < PART else "first rows"))
                warn_of(column_lines([each.processor for each in predictor.members], dataset, cases.metadata))
            rows = [AllRows(cases, member.processor, refuse_empty=True) for member in predictor.members]
            for part in predictor.stream(rows, **how):
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
            for noted, each in zip(notices, rows, strict=True):
                noted.update(each.notices())
        if pooling is not None and count:
            ids, whole = _by_group(parts, ids, groups, pooling)
            write(ids, whole, predictor.notes(whole))
            count, unreadable = len(ids), sum(error is not None for error in whole.errors)
    warn_of([*unseen_modalities(predictor.members, judged), *(line for noted in notices for line in noted.lines())])
    return Predicted(Path(output), count, unreadable, reason)


def _by_group(
    parts: Sequence[Prediction], ids: Sequence[str], groups: Sequence[str | None], pooling: str
) -> tuple[list[str], Prediction]:
    """Names and predictions of the groups; ValueError where no row has one."""
    if not any(group is not None for group in groups):
        raise ValueError("by group: no row has a group; name the column of patients or lesions, dataset.group_column.")
    return joined(parts, ids, groups, pooling)
