"""A trained model as an application uses it: rows in, diagnoses out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from mmfusion.data import CaseTable, DatasetConfig, Processor, check_images, read_cases
from mmfusion.data.formats import IMAGE_SUFFIXES, SHEET_SUFFIXES, TABLE_SUFFIXES
from mmfusion.inference.ensemble import Ensemble, Member, mean_of, members_of
from mmfusion.inference.onnx_model import OnnxModel
from mmfusion.inference.stream import (
    ROW_ERRORS,
    AllRows,
    Predicted,
    PredictionWriter,
    predict_rows,
    row_ids,
    with_content,
)
from mmfusion.models import FusionModel, load_model, read_config, resolve_artifact
from mmfusion.names import did_you_mean
from mmfusion.text.template import template_fields

if TYPE_CHECKING:
    from mmfusion.explanation import Explanation

logger = logging.getLogger(__name__)


@dataclass
class Predictor:
    """A model with its processor.

    Attributes:
        model: what computes: a ``FusionModel`` in evaluation mode, on its device; an ``OnnxModel`` where the folder
            holds an export; or an ``Ensemble`` of such.
        processor: how rows become tensors, and the class names; an ensemble's members have their own.
        provenance: how the model was made: the ``training`` entry of its ``config.json``, if any. Of an ensemble that
            of its first model.
        dtype: autocast to this type, e.g. ``torch.bfloat16``; None computes in the weights' own.
        channels_last: memory format of images and image weights.
        card: what the model card says: the ``card`` entry of its ``config.json``, if any.
    """

    model: FusionModel | OnnxModel | Ensemble
    processor: Processor
    provenance: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    channels_last: bool = False
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in members_of(self.model, self.processor):
            member.model.eval()
            if self.channels_last:
                member.model.to(memory_format=torch.channels_last)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Sequence[str],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        calibrated: bool = True,
    ) -> Predictor:
        """Load a saved model, an exported one, or several as an ensemble.

        Args:
            name: ``local-dir:FOLDER`` (a run folder stands for its ``best``; a folder that ``mmfusion export`` wrote is
                run by ONNX Runtime), ``hf-hub:org/name@revision`` or ``arch.tag``. Several predict the mean of their
                calibrated probabilities; the data are read as those of the first were.
            device: where to compute; None takes the accelerator where there is one.
            dtype: autocast type of the forward pass.
            channels_last: memory format of images and image weights; faster for convolutions.
            calibrated: divide the logits by the temperature that came with the model, where one did; False leaves the
                probabilities as the network gives them.

        Raises:
            FileNotFoundError: there is no such model, or one of its files is missing.
            ValueError: a file is damaged, the parts do not fit each other, or several models have different classes;
                ``dtype`` with an exported model, which computes in float32.
            ImportError: the model is an exported one, and ONNX Runtime is not installed.
        """
        names = [name] if isinstance(name, str) else list(name)
        if not names:
            raise ValueError("from_pretrained takes the name of a model, or of several; got none.")
        loaded = [_load(each, device, calibrated) for each in names]
        members = [member for member, *_ in loaded]
        if dtype is not None and any(isinstance(member.model, OnnxModel) for member in members):
            raise ValueError(f"dtype={dtype} does not go with an exported model, which computes in float32.")
        first, provenance, card = loaded[0]
        model = first.model if isinstance(name, str) or len(names) == 1 else Ensemble(members)
        return cls(model, first.processor, provenance, dtype, channels_last, card)

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.processor.labels)

    @property
    def dataset(self) -> DatasetConfig:
        """How the data that the model was trained on are read; the default for further data."""
        return DatasetConfig(**self.provenance.get("dataset", {}))

    def predict(
        self, rows: Iterable[Mapping[str, Any]], *, tta: bool = False, batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """Diagnose rows.

        Args:
            rows: each a dict with ``image`` (path, Pillow image or array), ``text``, and the metadata columns of the
                model's text template, any of which may be absent. ``id`` is handed through. A model of slices or views
                takes ``images``, a list in order (None: a missing view); one of regions takes ``roi`` (x0, y0, x1, y1),
                in pixels of the image.
            tta: average over test-time augmentations.
            batch_size: rows per step.

        Returns:
            One dict per row, in order: ``label``, ``probability``, ``probabilities`` (class -> probability); or
            ``error`` where the row cannot be read. With ``id`` where the row has one.

        Raises:
            TypeError: ``rows`` is a single row, or holds something else than dicts.
        """
        if isinstance(rows, Mapping | str):
            raise TypeError("predict takes a list of rows; put a single row in a list.")
        rows = list(rows)
        for row in rows:
            if not isinstance(row, Mapping):
                raise TypeError(f"A row is a dict with 'image', 'text' or metadata, not {type(row).__name__}.")
        _warn_of_unread(rows, self.processor)
        parts = self._predict(
            lambda member: _Encoded(rows, member.processor, member.model.image_layout), tta=tta, batch_size=batch_size
        )
        results = [
            {"error": error} if error else self._diagnosis(probabilities)
            for part in parts
            for probabilities, error in zip(part.probabilities, part.errors, strict=True)
        ]
        return [
            {"id": row["id"], **result} if "id" in row else result for row, result in zip(rows, results, strict=True)
        ]

    def predict_path(
        self,
        path: str | Path,
        output: str | Path,
        *,
        dataset: DatasetConfig | None = None,
        tta: bool = False,
        batch_size: int = 64,
    ) -> tuple[int, int]:
        """Diagnose a folder of images or a table, and write ``id, label, probability, p_<class>..., error``.

        Rows keep their order; one that cannot be read has its reason under ``error``.

        Args:
            path: folder of images, folder of a data set, or its table. Labels and splits are not needed.
            output: CSV file to write.
            dataset: how to read the data; None reads them as the training data were. A folder that holds no table is
                read as images alone.
            tta: average over test-time augmentations.
            batch_size: rows per step.

        Returns:
            The number of rows, and how many of them could not be read.

        Raises:
            FileNotFoundError: there are no such data.
            ValueError: the data as a whole cannot be read, e.g. a column is missing.
        """
        config = dataset or self.dataset
        if not _has_table(Path(path)):
            config = DatasetConfig(format="folder")
        cases = self._cases(path, config)
        ids, unreadable = row_ids(cases), 0
        parts = self._predict(
            lambda member: AllRows(cases, member.processor, refuse_empty=True), tta=tta, batch_size=batch_size
        )
        with (
            PredictionWriter(output, self.labels) as writer,
            tqdm(total=len(ids), desc="Predicting", unit="row", disable=None) as bar,
        ):
            for part in parts:
                writer.write(ids[part.start : part.start + len(part.errors)], part)
                unreadable += sum(error is not None for error in part.errors)
                bar.update(len(part.errors))
        return len(ids), unreadable

    def explain(
        self,
        row: Mapping[str, Any],
        *,
        label: str | None = None,
        method: str = "grad_cam",
        level: int = -1,
        text_method: str = "integrated_gradients",
    ) -> Explanation:
        """Explain the diagnosis of one row: heat map, words, gates, experts, and what each modality contributes.

        Args:
            row: as in :meth:`predict`.
            label: class to explain; None takes the predicted one.
            method: of the heat map: ``grad_cam``, ``integrated_gradients`` or ``occlusion``.
            level: of the backbone, for ``grad_cam``; -1 is the last, -2 the finer one before.
            text_method: of the words: ``integrated_gradients`` or ``gradient_x_input``.

        Returns:
            An :class:`mmfusion.explanation.Explanation`; ``mmfusion.explanation.save_explanation`` draws it.

        Raises:
            TypeError: the row is no dict.
            ValueError: the row cannot be read, an unknown class or method, or a model that cannot be explained: an
                exported one, or an ensemble.
            ImportError: captum is not installed (``pip install "mmfusion[explain]"``).
        """
        from mmfusion.explanation import explain

        if not isinstance(row, Mapping):
            raise TypeError(f"A row is a dict with 'image', 'text' or metadata, not {type(row).__name__}.")
        model = self.network()
        item = _Encoded([row], self.processor, model.image_layout)[0]
        return explain(
            model,
            self.processor,
            item,
            image=row.get("image"),
            label=label,
            method=method,
            level=level,
            text_method=text_method,
        )

    def explain_path(
        self,
        path: str | Path,
        output: str | Path,
        *,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        dataset: DatasetConfig | None = None,
        label: str | None = None,
        method: str = "grad_cam",
        level: int = -1,
        text_method: str = "integrated_gradients",
    ) -> dict[str, str | None]:
        """Explain rows of a data set, and write ``<id>.png`` and ``<id>.json`` for each.

        Args:
            path: as in :meth:`predict_path`.
            output: folder for the files.
            ids: rows to explain, in this order; None takes all.
            limit: at most so many of them.
            dataset: how to read the data; None reads them as the training data were.
            label: class to explain; None takes the predicted one of each row.
            method: of the heat map.
            level: of the backbone, for ``grad_cam``.
            text_method: of the words.

        Returns:
            Id -> why the row could not be read, or None.

        Raises:
            FileNotFoundError: there are no such data.
            ValueError: there is no such row, class or method, or the model cannot be explained.
            ImportError: captum is not installed.
        """
        from mmfusion.explanation import explain, save_explanation

        model = self.network()
        if label is not None:
            self.processor.label_id(label)
        config = dataset or self.dataset
        if not _has_table(Path(path)):
            config = DatasetConfig(format="folder")
        cases = self._cases(path, config)
        rows = AllRows(cases, self.processor, refuse_empty=True)
        places: dict[str, int] = {}  # the first row of each id, in the order of the rows
        for place, id_ in enumerate(rows.ids):
            places.setdefault(id_, place)
        if unknown := [id_ for id_ in ids or () if id_ not in places]:
            raise ValueError(f"{cases.source} has no row {unknown[0]!r}; {did_you_mean(unknown[0], list(places))}")
        images = cases.frame["image"].tolist()
        results: dict[str, str | None] = {}
        names: set[str] = set()
        for id_ in tqdm(list(places if ids is None else ids)[:limit], desc="Explaining", unit="row", disable=None):
            try:
                item = rows[places[id_]]
            except ROW_ERRORS as error:
                results[id_] = " ".join(str(error).split())
                continue
            image = images[places[id_]]
            explanation = explain(
                model,
                self.processor,
                item,
                image=cases.image_root / image if isinstance(image, str) else None,
                label=label,
                method=method,
                level=level,
                text_method=text_method,
            )
            save_explanation(explanation, Path(output) / _file_name(id_, names))
            results[id_] = None
        return results

    def _cases(self, path: str | Path, config: DatasetConfig) -> CaseTable:
        """The rows to diagnose. A case goes on without those of its images that cannot be read, which the log names."""
        cases = read_cases(path, config, processor_labels=self.labels, require_labels=False)
        if cases.layout != "image":
            for problem in check_images(cases).problems:
                if problem.part_of is not None:
                    logger.warning("%s: %s; its case goes on without it", cases.source, problem)
        return cases

    def _predict(self, open_rows: Callable[[Member], Any], *, tta: bool, batch_size: int) -> Iterator[Predicted]:
        """Predictions of the rows that ``open_rows`` encodes for each model."""
        streams = [
            predict_rows(
                member.model,
                open_rows(member),
                member.processor.collate,
                num_classes=len(self.labels),
                batch_size=batch_size,
                tta=tta,
                dtype=self.dtype,
                channels_last=self.channels_last,
            )
            for member in members_of(self.model, self.processor)
        ]
        return mean_of(streams)

    def network(self) -> FusionModel:
        """The model with its weights, which has gradients and attention to explain.

        Raises:
            ValueError: it is an exported model, or several.
        """
        if isinstance(self.model, OnnxModel):
            raise ValueError("An exported model has no gradients to explain with; explain the one it came from.")
        if isinstance(self.model, Ensemble):
            raise ValueError(f"An explanation is one model's, and this is an ensemble of {len(self.model.members)}.")
        return self.model

    def _diagnosis(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        by_class = dict(zip(self.labels, map(float, probabilities), strict=True))
        label = max(by_class, key=by_class.__getitem__)
        return {"label": label, "probability": by_class[label], "probabilities": by_class}


#: what a row may hold beside the metadata of the text template.
ROW_KEYS = ("id", "image", "images", "roi", "text")


def _warn_of_unread(rows: Sequence[Mapping[str, Any]], processor: Processor) -> None:
    """Say which metadata no one reads, where that may be a slip of the pen."""
    template = processor.text_template
    known = set(template_fields(template)) if template is not None else set()
    unread = sorted({str(key) for row in rows for key in row} - known.union(ROW_KEYS))
    if known and unread and not any(known & row.keys() for row in rows):
        logger.warning(
            "No row has any of %s, which the model's text is made of; %s is not read.",
            ", ".join(sorted(known)),
            ", ".join(unread),
        )


def _load(
    name: str, device: str | torch.device | None, calibrated: bool
) -> tuple[Member, dict[str, Any], dict[str, Any]]:
    """A saved or an exported model with its processor, how it was made, and what its card says."""
    folder = resolve_artifact(name)
    config, processor = read_config(folder), Processor.from_pretrained(folder)
    model: FusionModel | OnnxModel
    if "export" in config:
        model = OnnxModel(folder, device)
    else:
        model = load_model(folder)
        model.to(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    if len(processor.labels) != model.num_classes:
        raise ValueError(
            f"{folder}: the model has {model.num_classes} classes, the processor {len(processor.labels)} labels; "
            "save them again, together."
        )
    if not calibrated:
        model.calibration = None
    return Member(name, model, processor), config.get("training") or {}, config.get("card") or {}


@dataclass(frozen=True)
class _Encoded:
    """Rows given as dicts, encoded when they are asked for."""

    rows: Sequence[Mapping[str, Any]]
    processor: Processor
    layout: str | None = "image"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {key: value for key, value in self.rows[index].items() if key not in ("label", "image", "images", "roi")}
        return with_content(self.processor.encode_row(row | self._images(self.rows[index])))

    def _images(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's tower takes, of the row's ``image`` or ``images`` and ``roi``."""
        if self.layout is None:
            return {}
        images = row.get("images")
        images = [row.get("image")] if images is None else list(images)
        if self.layout == "views":
            return {"views": images}
        images = [image for image in images if image is not None]
        if self.layout == "slices":
            return {"slices": images}
        if len(images) > 1:
            raise ValueError(f"The row has {len(images)} images, and the model reads one.")
        found: dict[str, Any] = {"image": images[0]} if images else {}
        if any(other.get("roi") is not None for other in self.rows):
            found["roi"] = row.get("roi") or "centre"
        return found


def _file_name(id_: str, taken: set[str]) -> str:
    """A name for the files of a row: its id without the image's suffix, unlike those taken before."""
    stem, _, suffix = id_.rpartition(".")
    plain = re.sub(r"[^\w.-]+", "-", stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else id_).strip(".-") or "row"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    taken.add(name)
    return name


def _has_table(path: Path) -> bool:
    """Whether there is more to read than images: the path is a table, or holds one (imagefolder: one below)."""
    files = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/metadata.*")]
    return any(file.suffix.lower() in (*TABLE_SUFFIXES, *SHEET_SUFFIXES) for file in files) or not path.exists()
