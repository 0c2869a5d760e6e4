"""A trained model with its processor, calibration and provenance."""

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
from mmfusion.models.fitting import describe_inputs
from mmfusion.models.saving import model_config, save_pretrained
from mmfusion.progress import progress
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
        model: A ``FusionModel`` in evaluation mode on its device, or an ``OnnxModel`` of an export.
        processor: Converts rows to tensors, and has the class names.
        calibration: The ``calibration`` entry of its ``config.json``; None means uncalibrated.
        provenance: The ``training`` entry of its ``config.json``.
        card: The ``card`` entry of its ``config.json``: facts for the model card.
        metrics: Contents of ``metrics.json``, or None.
        name: Name in messages: the name it was loaded by.
        dtype: Autocast type, e.g. ``torch.bfloat16``; None disables autocast.
        channels_last: Memory format of images and image weights.
        columns: Column or key name used by the model -> name in the rows to predict.
        tta: Whether predictions average over test-time augmentations by default.
        decisions: Operating points and group pooling chosen on validation rows.
        familiarity: Detector of cases unlike the training rows, or None.
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
        describe_inputs(self.model, self.processor)
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
        """Load a saved model, an exported model, or several models as an ensemble.

        Args:
            name: Folder (for a run folder, its ``best``), ``hf-hub:org/name@revision`` or ``arch.tag``. For several, or
                the folder of an ensemble, probabilities are averaged and data are read as for the first.
            device: Device; None uses the accelerator if there is one.
            dtype: Autocast type of the forward pass.
            channels_last: Memory format of images and image weights; faster for convolutions.
            compile: Compile the model with torch.compile at its first batches; worthwhile for many rows on a GPU.
            calibrated: Apply the saved calibration; False returns uncalibrated probabilities.
            calibration: Update for another site from ``mmfusion validate``: its file, or the name of a stored one.
            columns: Name used by the model -> name in the rows to predict, e.g. ``{"age": "Age"}``.
            engine: ``torch``, or ``onnx``, which exports a saved model once; None depends on the folder.
            allow_edited: Load folders that were edited by hand after saving, with a warning.

        Raises:
            FileNotFoundError: The model or one of its files does not exist.
            ValueError: A file is damaged or edited, parts do not match, or ``dtype`` or ``compile`` with ONNX Runtime.
            ImportError: ONNX Runtime is needed but not installed.
        """
        given = [name] if isinstance(name, str | os.PathLike) else name
        how: Any = dict(device=device, dtype=dtype, channels_last=channels_last, compile=compile, engine=engine)
        with edits(allow_edited):
            if not (names := [each for one in given for each in member_names(one)]):
                raise ValueError("from_pretrained needs at least one model name; got none.")
            loaded = [cls(**saved_parts(each, calibrated=calibrated, calibration=calibration, **how)) for each in names]
        predictor = loaded[0] if len(loaded) == 1 else Ensemble(loaded)
        predictor.columns = check_columns([each.processor for each in predictor.members], columns or {})
        return predictor

    def save_pretrained(
        self, folder: str | Path, metrics: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write the model's folder: weights, configuration, processor, tokenizer, metrics and card.

        Args:
            folder: Output folder; created if missing.
            metrics: Metrics to save; None saves :attr:`metrics`.
            dtype: Type of the saved weights; None keeps theirs.

        Raises:
            ValueError: The model is an exported one or an ensemble.
        """
        about: dict[str, Any] = {"metrics": self.metrics if metrics is None else metrics, "dtype": dtype}
        if self.familiarity is not None:
            self.familiarity.write(Path(folder))
        return save_pretrained(self.network(), folder, self.processor, metadata=self._entries(), **about)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Push the model to the Hub in one commit and return its URL.

        Args:
            repo_id: ``org/name``; a new repository is private.
            options: Options of :func:`mmfusion.push_to_hub`.

        Raises:
            ValueError: The model is an exported one or an ensemble; also as :func:`mmfusion.push_to_hub`.
        """
        with tempfile.TemporaryDirectory() as folder:
            return push_to_hub(self.save_pretrained(folder), repo_id, **options)

    def config(self) -> dict[str, Any]:
        """The contents of ``config.json``, except the hash of the weights."""
        return model_config(self.network(), self._entries())

    def _entries(self) -> dict[str, Any]:
        """Entries of ``config.json`` besides the model itself."""
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
        """The PyTorch model with weights and gradients; ValueError for exported models and ensembles."""
        if not isinstance(self.model, FusionModel):
            raise ValueError(f"{self.name} is an exported model or an ensemble; load the original model instead.")
        return self.model

    def __repr__(self) -> str:
        return described(self)

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.processor.labels)

    @property
    def task(self) -> Task:
        """The task of the model with its labels."""
        return task_of(self.members[0].model, self.labels, self.processor.targets)

    @property
    def note_columns(self) -> list[str]:
        """Additional columns: ``alarm`` (``yes`` or ``no``) with an operating point; ``familiarity``, the share of
        usual cases that are no more similar to the training rows; and ``unlike``, the unfamiliar modalities.
        """
        return [*self.decisions.columns, *(FAMILIARITY if self.familiarity is not None else ())]

    def notes(self, part: Prediction) -> dict[str, list[Any]]:
        """Column of :attr:`note_columns` -> value for each row of a part, empty for unreadable rows."""
        return notes_of(part, self.labels, self.decisions)

    @property
    def dataset(self) -> DatasetConfig:
        """How the training data were read, the default for new data."""
        return DatasetConfig(**handed_on(self.provenance.get("dataset") or {}), columns=dict(self.columns))

    @property
    def image_layout(self) -> str | None:
        """Image layout: one ``image``, ``slices`` or ``views``; None if the model uses no images."""
        return cast("str | None", self.model.image_layout)

    @property
    def members(self) -> list[Predictor]:
        """The models whose probabilities are averaged: several for an ensemble, else this one."""
        return [self]

    def predict(
        self,
        rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
        *,
        tta: bool | None = None,
        batch_size: int = 32,
        refuse_unfamiliar: float | None = None,
    ) -> list[dict[str, Any]]:
        """Predict rows.

        Args:
            rows: Dicts with ``image`` (path, Pillow image or array), ``text``, and the model's columns, all optional;
                ``id`` is copied to the result. A model of slices or views takes ``images``, an ordered list (None: a
                missing view); one of regions takes ``roi`` (x0, y0, x1, y1) in pixels. Also a pandas or pyarrow table
                of such rows, whose columns may have the names used in training.
            tta: As in :meth:`stream`, like ``batch_size`` and ``refuse_unfamiliar``.

        Returns:
            One dict per row, in order: ``label``, ``probability``, ``probabilities`` (class -> probability), ``inputs``
            (such as ``image+text``), and the :attr:`note_columns`; or ``error``; and ``id`` if given. Unused input is
            reported by warnings.

        Raises:
            TypeError: ``rows`` is a single row, or has elements other than dicts.
        """
        given = checked_rows(rows, [each.processor for each in self.members], self.dataset)
        encoded = [DictRows(given, each.processor, each.image_layout) for each in self.members]
        parts = self.stream(encoded, tta=tta, batch_size=batch_size, refuse_unfamiliar=refuse_unfamiliar)
        results = diagnoses(given, parts, self.task, self.notes)
        warn_of(unseen_modalities(self.members, [result["inputs"] for result in results if "inputs" in result]))
        tell_notices(encoded)
        return results

    __call__ = predict

    def predict_proba(
        self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame, *, tta: bool | None = None, batch_size: int = 32
    ) -> NDArray[np.float64]:
        """Probabilities of rows in scikit-learn's format: (N, C), in the order of :attr:`classes_`.

        The arguments are those of :meth:`predict`.

        Raises:
            ValueError: A row cannot be read, or the task is regression.
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
        """Predict all rows of a table and return those that metrics can use.

        Args:
            cases: The rows; those without a label are predicted but not returned.
            output: CSV file for the predictions of all rows; None writes none.
            on_bad_row: ``fail`` stops at an unreadable row; ``skip`` excludes it.
            batch_size: As in :meth:`stream`, like ``tta``, ``workers`` and ``description``.
            open_rows: Function that opens valid rows, e.g. as cached features; None encodes them with the processor.

        Raises:
            ValueError: A row is unreadable and ``on_bad_row`` is ``fail``.
        """
        if on_bad_row not in ("fail", "skip"):
            raise ValueError(f"on_bad_row must be 'fail' or 'skip', got {on_bad_row!r}.")
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
                        raise ValueError(f"Row {id_} cannot be evaluated: {error}; fix it or use --on-bad-row skip.")
                parts.append(part)
                if write:
                    known = dict(zip(MEASURED, (truth[part.rows], groups[part.rows]), strict=True))
                    write(ids[part.rows], part, known | self.notes(part))
        return kept(cases, labels, parts, task)

    def explain(self, row: Mapping[str, Any], **options: Any) -> Explanation:
        """Explain the prediction for one row: heat map, words, gates, experts, and contribution of each modality.

        Args:
            row: Row as in :meth:`predict`.
            options: ``label``, ``method``, ``level`` and ``text_method`` of
                :class:`~mmfusion.explanation.config.ExplainConfig`.

        Returns:
            An :class:`mmfusion.explanation.Explanation`; draw it with ``mmfusion.explanation.save_explanation``.

        Raises:
            TypeError: The row is not a dict.
            ValueError: The row is unreadable, a class or method is unknown, or the model cannot be explained (an
                exported one, or an ensemble).
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
        """Predict rows batch by batch, in order.

        Args:
            rows: One data set per element of :attr:`members`, with the rows encoded for it.
            batch_size: Rows per step.
            tta: Average over test-time augmentations; None uses each model's setting.
            workers: Loader processes.
            refuse_unfamiliar: Rows less familiar than this get an error instead of a prediction; None disables it.
            description: Label of the progress; empty shows none.
        """
        how: dict[str, Any] = dict(batch_size=batch_size, tta=tta, workers=workers, refuse_unfamiliar=refuse_unfamiliar)
        streams = [member._stream(encoded, **how) for member, encoded in zip(self.members, rows, strict=True)]
        with progress(description, len(rows[0]), shown=bool(description)) as bar:
            for part in mean_of(streams):
                yield part
                bar.update(len(part.errors))

    def _stream(self, rows: Any, *, tta: bool | None, **options: Any) -> Iterator[Prediction]:
        own = {name: getattr(self, name) for name in ("task", "calibration", "familiarity", "dtype", "channels_last")}
        own |= {"table": self.processor.table, "tta": self.tta if tta is None else tta}
        return predict_rows(self.model, rows, rows.collate, **own, **options)


class Ensemble(Predictor):
    """Several models that predict the mean of their calibrated probabilities.

    Each encodes the rows with its own processor: image sizes and tokenizers may differ, but not the classes. Processor
    and provenance are those of the first; calibrations and test-time augmentation are per member.

    Args:
        members: At least two models.

    Raises:
        ValueError: Fewer than two models, or different classes or image layouts.
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
