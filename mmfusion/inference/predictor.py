"""A trained model: what computes, the processor that makes its inputs, its temperature, and how it was made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from mmfusion.artifacts.folder import member_names
from mmfusion.artifacts.integrity import edits
from mmfusion.artifacts.publishing import push_to_hub
from mmfusion.data import CaseTable, DatasetConfig, Processor
from mmfusion.data.config import handed_on
from mmfusion.decisions import Decisions
from mmfusion.inference.cases import Predictions, kept
from mmfusion.inference.columns import check_columns, unseen_modalities, warn_of
from mmfusion.inference.description import described
from mmfusion.inference.diagnoses import diagnoses, probabilities_of
from mmfusion.inference.familiarity import Familiarity
from mmfusion.inference.loading import check_members, saved_parts
from mmfusion.inference.notes import FAMILIARITY, notes_of
from mmfusion.inference.onnx_model import OnnxModel
from mmfusion.inference.predictions_csv import MEASURED, prediction_writer
from mmfusion.inference.rows import AllRows, DictRows, checked_rows, tell_notices
from mmfusion.inference.stream import Prediction, mean_of, predict_rows
from mmfusion.models import FusionModel
from mmfusion.models.saving import model_config, save_pretrained
from mmfusion.records import to_plain
from mmfusion.task import Task, task_of
from mmfusion.text.tokenizer import vocabulary_of

if TYPE_CHECKING:
    import pandas as pd

    from mmfusion.explanation import Explanation


@dataclass(eq=False, repr=False)
class Predictor:
    """A trained model.

    Attributes:
        model: What computes: a ``FusionModel`` in evaluation mode, on its device, or an ``OnnxModel`` of an export.
        processor: How rows become tensors, and the class names.
        calibration: The ``calibration`` entry of its ``config.json``; None leaves the network's own probabilities.
        provenance: How the model was made: the ``training`` entry of its ``config.json``.
        card: What the model card says beside that: the ``card`` entry of its ``config.json``.
        metrics: What was measured of the model, as ``metrics.json`` has it; None where nothing was.
        name: What messages call it: the name it was loaded by.
        dtype: Type to autocast to, e.g. ``torch.bfloat16``; None computes in the weights' own.
        channels_last: Memory format of images and image weights.
        columns: Name of a column or key that the model reads -> its name in the rows to predict.
        tta: Whether predictions average over test-time augmentations where nothing else is said.
        decisions: Operating points, and how the rows of a group give one answer, as chosen on validation rows.
        familiarity: What the model remembers of its training rows as a whole, to tell a case that is unlike them.
    """

    model: FusionModel | OnnxModel | nn.Module
    processor: Processor
    calibration: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    name: str = "the model"
    dtype: torch.dtype | None = None
    channels_last: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    tta: bool = False
    decisions: Decisions = field(default_factory=Decisions)
    familiarity: Familiarity | None = None

    def __post_init__(self) -> None:
        self.model.eval()
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        compile: bool = False,
        calibrated: bool = True,
        calibration: str | os.PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        engine: str | None = None,
        allow_edited: bool | None = None,
    ) -> Predictor:
        """Load a saved model, an exported one, or several as an ensemble.

        Args:
            name: Folder (a run folder stands for its ``best``), ``hf-hub:org/name@revision`` or ``arch.tag``. Several,
                or an ensemble's folder, predict the mean of their probabilities, with data read as for the first.
            device: Where to compute; None takes the accelerator where there is one.
            dtype: Autocast type of the forward pass.
            channels_last: Memory format of images and image weights; faster for convolutions.
            compile: Compile the model with torch.compile, at its first batches: for many rows on a GPU.
            calibrated: Apply the calibration that came with the model; False leaves the network's own probabilities.
            calibration: Update for another site by ``mmfusion validate``: its file, or the name of a stored one.
            columns: Name that the model reads -> name in the rows to predict, e.g. ``{"age": "Age"}``.
            engine: ``torch``, or ``onnx``, for which a saved model is exported once; None takes the folder's own.
            allow_edited: Take folders that were edited by hand since they were saved, with a warning.

        Raises:
            FileNotFoundError: There is no such model, or one of its files is missing.
            ValueError: A file is damaged or edited, parts do not fit, or ``dtype`` or ``compile`` with ONNX Runtime.
            ImportError: ONNX Runtime is wanted and not installed.
        """
        given = [name] if isinstance(name, str | os.PathLike) else name
        how: Any = dict(device=device, dtype=dtype, channels_last=channels_last, compile=compile, engine=engine)
        with edits(allow_edited):
            if not (names := [each for one in given for each in member_names(one)]):
                raise ValueError("from_pretrained takes the name of a model, or of several; got none.")
            loaded = [cls(**saved_parts(each, calibrated=calibrated, calibration=calibration, **how)) for each in names]
        predictor = loaded[0] if len(loaded) == 1 else Ensemble(loaded)
        predictor.columns = check_columns([each.processor for each in predictor.members], columns or {})
        return predictor

    def save_pretrained(
        self, folder: str | Path, metrics: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write the model's folder: weights, configuration, processor, tokenizer, metrics and card.

        Args:
            folder: Folder to write to; it is made where there is none.
            metrics: What was measured; None writes :attr:`metrics`.
            dtype: Type of the weights in the file; None keeps theirs.

        Raises:
            ValueError: The model is an exported one, or several.
        """
        about: dict[str, Any] = {"metrics": self.metrics if metrics is None else metrics, "dtype": dtype}
        if self.familiarity is not None:
            self.familiarity.write(Path(folder))
        return save_pretrained(self.network(), folder, self.processor, metadata=self._entries(), **about)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Push the model, as :meth:`save_pretrained` writes it, to the Hub in one commit, whose address is returned.

        Args:
            repo_id: ``org/name``; a new repository is private.
            options: As those of :func:`mmfusion.push_to_hub`.

        Raises:
            ValueError: The model is an exported one, or several; and as :func:`mmfusion.push_to_hub`.
        """
        with tempfile.TemporaryDirectory() as folder:
            return push_to_hub(self.save_pretrained(folder), repo_id, **options)

    def config(self) -> dict[str, Any]:
        """The content of ``config.json``, but for the hash of the weights."""
        return model_config(self.network(), self._entries())

    def _entries(self) -> dict[str, Any]:
        """What ``config.json`` says beside the model itself."""
        return {
            "processor": self.processor.to_dict(),
            "vocabulary": vocabulary_of(self.processor.tokenizer),
            "calibration": self.calibration,
            "tta": self.tta,
            "training": self.provenance,
            "card": self.card,
            **({"decisions": to_plain(self.decisions)} if self.decisions != Decisions() else {}),
            **({"familiarity": self.familiarity.entry()} if self.familiarity is not None else {}),
        }

    def network(self) -> FusionModel:
        """The model with its weights and gradients; ValueError of an exported one, or several."""
        if not isinstance(self.model, FusionModel):
            raise ValueError(f"{self.name} is an exported model, or several; take the one that it was made of.")
        return self.model

    def __repr__(self) -> str:
        return described(self)

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.processor.labels)

    @property
    def task(self) -> Task:
        """What the model answers, with its labels."""
        return task_of(self.members[0].model, self.labels, self.processor.targets)

    @property
    def note_columns(self) -> list[str]:
        """What is said of a row beside its class: ``alarm``, ``yes`` or ``no``, of a model with an operating point;
        ``familiarity``, the share of usual cases that are no more like the training rows; the modalities ``unlike``.
        """
        return [*self.decisions.columns, *(FAMILIARITY if self.familiarity is not None else ())]

    def notes(self, part: Prediction) -> dict[str, list[Any]]:
        """Column of :attr:`note_columns` -> cell of each row of a part, empty where the row could not be read."""
        return notes_of(part, self.labels, self.decisions)

    @property
    def dataset(self) -> DatasetConfig:
        """How the data that the model was trained on are read; the default for further data."""
        return DatasetConfig(**handed_on(self.provenance.get("dataset") or {}), columns=dict(self.columns))

    @property
    def image_layout(self) -> str | None:
        """What the model reads of a row's images: one ``image``, ``slices`` or ``views``; None for nothing."""
        return cast("str | None", self.model.image_layout)

    @property
    def members(self) -> list[Predictor]:
        """The models whose probabilities are averaged: of an ensemble several, else this one."""
        return [self]

    def predict(
        self,
        rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
        *,
        tta: bool | None = None,
        batch_size: int = 32,
        refuse_unfamiliar: float | None = None,
    ) -> list[dict[str, Any]]:
        """Diagnose rows.

        Args:
            rows: Dicts with ``image`` (path, Pillow image or array), ``text``, and the columns that the model reads, as
                inputs of their own or in its text template, any of which may be absent. ``id`` is handed through. A
                model of slices or views takes ``images``, a list in order (None: a missing view); one of regions takes
                ``roi`` (x0, y0, x1, y1), in pixels of the image. Or a pandas or pyarrow table of such rows, whose
                columns may also bear the names that they had in training.
            tta: As for :meth:`stream`, like ``batch_size`` and ``refuse_unfamiliar``.

        Returns:
            One dict per row, in order: ``label``, ``probability``, ``probabilities`` (class -> probability), ``inputs``
            (such as ``image+text``), and what :attr:`note_columns` names; or ``error``. With ``id`` where the row has
            one. Warnings tell what was not read.

        Raises:
            TypeError: ``rows`` is a single row, or holds something other than dicts.
        """
        given = checked_rows(rows, [each.processor for each in self.members], self.dataset)
        encoded = [DictRows(given, each.processor, each.image_layout) for each in self.members]
        parts = self.stream(encoded, tta=tta, batch_size=batch_size, refuse_unfamiliar=refuse_unfamiliar)
        results = diagnoses(given, parts, self.task, self.notes)
        warn_of(unseen_modalities(self.members, [result["inputs"] for result in results if "inputs" in result]))
        tell_notices(encoded)
        return results

    def predict_proba(
        self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame, *, tta: bool | None = None, batch_size: int = 32
    ) -> NDArray[np.float64]:
        """The probabilities of rows, as scikit-learn gives them: (N, C), in the order of :attr:`classes_`.

        The arguments are those of :meth:`predict`.

        Raises:
            ValueError: A row cannot be read, or the model predicts numbers.
        """
        return probabilities_of(self.predict(rows, tta=tta, batch_size=batch_size), self.task)

    @property
    def classes_(self) -> NDArray[np.str_]:
        """Class names, in the order of the probabilities, as an array (C,)."""
        return np.array(self.labels)

    def predict_cases(
        self,
        cases: CaseTable,
        *,
        output: str | Path | None = None,
        on_bad_row: str = "fail",
        batch_size: int = 64,
        tta: bool | None = None,
        workers: int = 0,
        open_rows: Callable[[CaseTable], Any] | None = None,
        description: str = "Evaluating",
    ) -> Predictions:
        """Predict all rows of a table, and keep those that metrics can be taken on.

        Args:
            cases: The rows; those without a label are predicted, and left out of the result.
            output: CSV file for the predictions of all rows; None writes none.
            on_bad_row: ``fail`` stops at a row that cannot be read; ``skip`` leaves it out.
            batch_size: As for :meth:`stream`, like ``tta``, ``workers`` and ``description``.
            open_rows: Makes the data set of sound rows, e.g. of cached features; None encodes them with the processor.

        Raises:
            ValueError: A row cannot be read and ``on_bad_row`` is ``fail``.
        """
        if on_bad_row not in ("fail", "skip"):
            raise ValueError(f"on_bad_row is 'fail' or 'skip', not {on_bad_row!r}.")
        read = [AllRows(cases, each.processor, open_rows=open_rows) for each in self.members]
        ids, labels, task = read[0].ids, read[0].labels, self.task
        truth = [task.written(label) for label in labels]
        groups = ["" if group is None else group for group in cases.frame["group"]]
        parts: list[Prediction] = []
        columns: dict[str, Any] = {"known": MEASURED, "notes": self.note_columns, "task": task}
        with prediction_writer(output, self.labels, **columns) if output else nullcontext() as write:
            for part in self.stream(read, description=description, batch_size=batch_size, tta=tta, workers=workers):
                for id_, error in zip(ids[part.rows], part.errors, strict=True):
                    if error is not None and on_bad_row == "fail":
                        way = "mend it, or leave it out with --on-bad-row skip"
                        raise ValueError(f"Row {id_} cannot be evaluated: {error}; {way}.")
                parts.append(part)
                if write:
                    known = dict(zip(MEASURED, (truth[part.rows], groups[part.rows]), strict=True))
                    write(ids[part.rows], part, known | self.notes(part))
        return kept(cases, labels, parts, task)

    def explain(self, row: Mapping[str, Any], **options: Any) -> Explanation:
        """Explain the diagnosis of one row: heat map, words, gates, experts, and what each modality contributes.

        Args:
            row: Row as in :meth:`predict`.
            options: ``label``, ``method``, ``level`` and ``text_method``, as
                :class:`~mmfusion.explanation.config.ExplainConfig` has them.

        Returns:
            An :class:`mmfusion.explanation.Explanation`; ``mmfusion.explanation.save_explanation`` draws it.

        Raises:
            TypeError: The row is no dict.
            ValueError: The row cannot be read, an unknown class or method, or a model that cannot be explained: an
                exported one, or an ensemble.
            ImportError: captum is not installed (``pip install "mmfusion[explain]"``).
        """
        from mmfusion.explanation import explain_item

        (row,) = checked_rows([row], [self.processor], self.dataset)
        item = DictRows([row], self.processor, self.members[0].image_layout)[0]
        return explain_item(self, item, image=row.get("image"), **options)

    def stream(
        self,
        rows: Sequence[Any],
        *,
        batch_size: int,
        tta: bool | None = None,
        workers: int = 0,
        refuse_unfamiliar: float | None = None,
        description: str = "",
    ) -> Iterator[Prediction]:
        """Predict rows, batch by batch, in their order.

        Args:
            rows: One data set for each of :attr:`members`, the rows as that one encodes them.
            batch_size: Rows per step.
            tta: Average over test-time augmentations; None does as each model was saved.
            workers: Loader processes.
            refuse_unfamiliar: Rows less familiar than this get an error in place of a prediction; None refuses none.
            description: What the progress bar says; without it there is none.
        """
        how: dict[str, Any] = dict(batch_size=batch_size, tta=tta, workers=workers, refuse_unfamiliar=refuse_unfamiliar)
        streams = [member._stream(encoded, **how) for member, encoded in zip(self.members, rows, strict=True)]
        disable = None if description else True  # None: on a terminal only
        with tqdm(total=len(rows[0]), desc=description, unit="row", disable=disable) as bar:
            for part in mean_of(streams):
                yield part
                bar.update(len(part.errors))

    def _stream(self, rows: Any, *, tta: bool | None, **options: Any) -> Iterator[Prediction]:
        own: dict[str, Any] = dict(task=self.task, calibration=self.calibration, familiarity=self.familiarity)
        own |= dict(table=self.processor.table, dtype=self.dtype, channels_last=self.channels_last)
        options["tta"] = self.tta if tta is None else tta
        return predict_rows(self.model, rows, rows.collate, **own, **options)


class Ensemble(Predictor):
    """Several models that answer as one, with the mean of their calibrated probabilities.

    Each reads the rows with its own processor: image sizes and tokenizers may differ, the classes may not. Processor
    and provenance are those of the first, calibrations and test-time augmentations its members' own.

    Args:
        members: Two models at least.

    Raises:
        ValueError: Fewer than two, or models that differ in their classes or in what a row's images are.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = check_members(members)
        self._members = list(members)
        models = nn.ModuleList([member.model for member in members])
        name = f"the mean of {len(members)} models: {', '.join(member.name for member in members)}"
        super().__init__(models, first.processor, provenance=first.provenance, name=name)

    @property
    def members(self) -> list[Predictor]:
        return self._members
