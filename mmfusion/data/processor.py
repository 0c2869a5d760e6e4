"""Converts cases to tensors; saved with the model, so that its inputs are always made the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image

from mmfusion.artifacts.folder import update_config
from mmfusion.artifacts.integrity import begin, check_files
from mmfusion.artifacts.names import CONFIG
from mmfusion.data.bags import encode_bag, pad_bags
from mmfusion.data.config import DatasetConfig
from mmfusion.data.image_inputs import ImageEncoder, pad_images
from mmfusion.data.saved_tokenizer import saved_tokenizer
from mmfusion.data.table_columns import MISSING, TableColumns
from mmfusion.images.opening import INTERPOLATIONS, ImageLike
from mmfusion.images.slices import check_choice_of_slices
from mmfusion.images.windows import CROP_MODES, Window, check_window
from mmfusion.names import check_choice, one_line
from mmfusion.task import DEFAULT, Task, task_named
from mmfusion.text.template import free_text, join_text, render, template_fields
from mmfusion.text.tokenizer import cut
from mmfusion.untrusted import read_foreign_json

if TYPE_CHECKING:
    import random

    import pandas as pd
    from transformers import PreTrainedTokenizerFast

    from mmfusion.images.augmentations import Augmentation

#: Settings omitted from files if they are None or the default.
_OPTIONAL = ("bag_dim", "window", "slice", "slices", "task", "targets", "crop_mode")


@dataclass(eq=False)
class Processor:
    """Image transform, tokenizer, text template and class names.

    Attributes:
        labels: Class names, in the order of the model's logits.
        image_size: Side of the square input in pixels; None disables image inputs.
        mean: Mean of each channel, for pixels in 0-1; ImageNet's by default.
        std: Standard deviation of each channel; ImageNet's by default.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        crop_pct: Fraction of the shorter side kept outside training.
        crop_mode: Treatment of images that are not square: ``center`` crops the center square, ``border`` pads the
            image to a square in the mean color and keeps all of it, whatever ``crop_pct``.
        tokenizer: Tokenizer; None disables text inputs.
        text_template: Sentence built from metadata, placed before the free text (:func:`mmfusion.data.render`).
        max_length: Token budget of a text, including special tokens.
        table: Columns used as inputs, fitted on the training rows; None disables column inputs.
        missing_values: Cell values (in any case) that count as missing in metadata.
        bag_dim: Width of the feature vectors of a bag; None disables bag inputs.
        window: Gray values mapped to black and white: ``auto``, ``full``, ``percentile``, ``dicom`` or ``[center,
            width]``, see :func:`mmfusion.images.grey_values.rgb_pictures`. None is ``auto``, except that 8-bit images
            lose their opacity, as for models saved without a window.
        slice: Slice to use of a file with several, its number or ``middle``; None rejects such files.
        slices: Slices to read of a file in a study, as ``dataset.slices``; None reads all.
        task: Task of the labels (``mmfusion.list_components("task")``).
        targets: Statistics of the training labels that the task needs, such as mean and scale, or None.
        question: The task with these labels.

    Raises:
        ValueError: A value is out of range, or the tokenizer has no padding token.
    """

    labels: Sequence[str] = ()
    image_size: int | None = None
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    tokenizer: PreTrainedTokenizerFast | None = None
    text_template: str | None = None
    max_length: int = 256
    table: TableColumns | None = None
    missing_values: Sequence[str] = field(default_factory=lambda: DatasetConfig().missing_values)
    bag_dim: int | None = None
    window: Window = "auto"
    slice: int | str | None = None
    slices: int | str | None = None
    task: str = DEFAULT
    targets: dict[str, Any] | None = None
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        self.labels = [str(label) for label in self.labels]
        self.mean, self.std = tuple(map(float, self.mean)), tuple(map(float, self.std))
        self.missing_values = [value.lower() for value in self.missing_values]
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"The labels of a processor must be unique, got {self.labels}.")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need three values each, std above 0; got {self.mean} and {self.std}.")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"Unknown interpolation {self.interpolation!r}; known: {', '.join(INTERPOLATIONS)}.")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], got {self.crop_pct}.")
        check_choice("crop_mode", self.crop_mode, CROP_MODES)
        if self.crop_mode == "border":
            self.crop_pct = 1.0
        check_window(self.window)
        check_choice_of_slices(self.slice, self.slices)
        if self.max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a token, [SEP]), got {self.max_length}.")
        if self.tokenizer is not None and self.tokenizer.pad_token_id is None:
            raise ValueError("The tokenizer of a processor needs a padding token; set tokenizer.pad_token.")
        if self.text_template is not None:
            template_fields(self.text_template)
        if isinstance(self.table, Mapping):
            self.table = TableColumns.from_dict(self.table)
        self.question: Task = task_named(self.task, self.labels, targets=self.targets)

    @property
    def reads_images(self) -> bool:
        """Whether images, or bags of their features, are inputs."""
        return self.image_size is not None or self.bag_dim is not None

    def text_of(self, row: Mapping[str, Any]) -> str | None:
        """Text of a row: the sentence from its metadata, then its free text; None if it has neither.

        Args:
            row: Metadata columns and ``text``; missing columns of the template count as missing values.

        Raises:
            TypeError: The text is bytes, a list or another collection.
            ValueError: The text has a lone surrogate, which no tokenizer accepts.
        """
        sentence = None
        if self.text_template is not None:
            metadata = {name: row.get(name) for name in template_fields(self.text_template)}
            sentence = render(self.text_template, metadata, self.missing_values)
        return join_text(sentence, free_text(row.get("text")))

    def label_id(self, label: str) -> int:
        """Index of a class in the logits.

        Raises:
            ValueError: The class does not exist.
        """
        return self.question.position(label)

    def encode_row(self, row: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Tensors of a row with ``image`` (or ``slices`` or ``views``), ``roi``, ``text``, ``label`` and metadata.

        All are optional. Keywords are those of :meth:`encode`.
        """
        given = {name: row.get(name) for name in ("image", "slices", "views", "roi", "label", "bag")}
        return self.encode(**{"text": self.text_of(row), "table": row, **given, **kwargs})

    def encode(
        self,
        image: ImageLike | None = None,
        text: str | None = None,
        label: Any = None,
        *,
        slices: Sequence[ImageLike] | None = None,
        views: Sequence[ImageLike | None] | None = None,
        roi: Sequence[float] | Literal["centre"] | None = None,
        bag: str | os.PathLike[str] | np.ndarray | None = None,
        table: Mapping[str, Any] | tuple[Any, Any] | None = None,
        augment: str | Augmentation | None = None,
        rng: random.Random | None = None,
        image_size: int | None = None,
    ) -> dict[str, Any]:
        """Convert one case to tensors, for :meth:`collate`.

        Args:
            image: Path, Pillow image, array, or None if missing.
            text: The complete text, or None.
            label: Class name or index; for other tasks a table cell, or a list with 1, 0 or NaN per label or a number
                per target.
            slices: Ordered images of a study, instead of ``image``; empty if the case has none.
            views: One image per view in the model's order, None if missing, instead of ``image``.
            roi: Region of interest (x0, y0, x1, y1) in pixels of ``image``, widened to a square within the image;
                ``centre`` is the middle half, in width and height, of the ``pixel_values`` outside training, which is
                also the default region of ``GlobalLocalTower``.
            bag: File of a bag of feature vectors, or the vectors (N, D); None if missing.
            table: Row with the columns of :attr:`table`, each optional; or its encoded numbers (C,) and category
                ids (K,).
            augment: Training augmentation or its name; draws from ``rng``.
            rng: Random generator of this row, from :func:`mmfusion.images.augmentations.row_rng`.
            image_size: Image size instead of the processor's.

        Returns:
            ``pixel_values`` (3, H, W) float32 and ``image_present`` (zeros and False without an image); with ``slices``
            (S, 3, H, W) and ``slice_mask`` (S,), with ``views`` (V, 3, H, W) and ``view_mask`` (V,); with ``roi``
            ``roi_values`` (3, H, W). All images of a case are augmented alike, and each is decoded once. For a bag
            ``bag_values`` (N, D) in half precision and ``image_present``.
            ``numeric_values`` (C,) float32 with NaN for a missing cell and ``category_ids`` (K,) int64, if the
            processor has such columns, and ``table_present``, False if all cells are missing.
            ``input_ids`` (list, without padding) and ``text_present``; ``labels`` if given.

        Raises:
            FileNotFoundError: The image does not exist.
            ValueError: The image cannot be decoded, the label is unknown, a region is outside its image, or more than
                one of ``image``, ``slices`` and ``views`` is given.
        """
        several = slices is not None or views is not None
        if (several and (image is not None or roi is not None)) or (slices is not None and views is not None):
            raise ValueError("A case needs an image (with or without a region of interest), slices, or views.")
        item: dict[str, Any] = {}
        if self.image_size is not None:
            shown = image_size or self.image_size, self.mean, self.std, self.interpolation, self.crop_pct
            encoder = ImageEncoder(*shown, augment, rng, self.window, self.slice, self.slices, self.crop_mode)
            if slices is not None:
                item |= encoder.several(slices, "slice_mask")
            elif views is not None:
                item |= encoder.several(views, "view_mask")
            else:
                item |= encoder.one(image, roi)
        if self.bag_dim is not None:
            item |= encode_bag(bag, self.bag_dim)
        if self.tokenizer is not None:
            text = (text or "").strip()
            how: dict[str, Any] = {"truncation": True, "max_length": self.max_length}
            tokens = self.tokenizer(cut(text, self.max_length), **how) if text else {"input_ids": []}
            item |= {"input_ids": tokens["input_ids"], "text_present": text != ""}
        if self.table is not None:
            cells = table or {}
            encoded = self.table.encode(cells, self.missing_values) if isinstance(cells, Mapping) else cells
            item |= _table_inputs(*encoded)
        if label is not None:
            item["labels"] = self.question.target(label)
        return item

    def collate(
        self, items: Sequence[Mapping[str, Any]], pad_to_multiple_of: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Collate encoded cases into a batch of keyword tensors, padded to the longest text: ``model(**batch)``.

        Args:
            items: Results of :meth:`encode`.
            pad_to_multiple_of: Round the padded length up to a multiple of this.

        Returns:
            ``pixel_values`` (B, 3, H, W) float32 and ``image_present`` (B,) bool, if the processor handles images;
            for studies (B, S, 3, H, W) and ``slice_mask`` (B, S) bool, padded with zeros to the longest, for views
            (B, V, 3, H, W) and ``view_mask`` (B, V) bool; for bags ``bag_values`` (B, N, D) float16, also padded,
            and ``bag_mask`` (B, N) bool; ``roi_values`` (B, 3, H, W) if cases have regions;
            ``input_ids``, ``attention_mask`` (B, L) int64 and ``text_present`` (B,) bool, if it handles text (a case
            without text has an all-zero mask); ``numeric_values`` (B, C), ``category_ids`` (B, K) and ``table_present``
            (B,) bool, if it handles columns; ``labels`` (B,) int64 if every case has one, or (B, C) float32 for several
            labels or numbers.
        """
        labelled = all("labels" in item for item in items)
        columns = {name: [item[name] for item in items] for name in items[0] if name != "labels" or labelled}
        batch: dict[str, torch.Tensor] = {}
        if self.image_size is not None:
            mask = next((name for name in ("slice_mask", "view_mask") if name in items[0]), None)
            if mask is not None:
                batch |= pad_images(columns.pop("pixel_values"), columns.pop(mask), mask)
        if self.bag_dim is not None:
            batch |= pad_bags(columns.pop("bag_values"))
        if self.tokenizer is not None:
            batch |= self._pad(columns.pop("input_ids"), pad_to_multiple_of or 1)
        for name, values in columns.items():
            batch[name] = torch.stack(values) if isinstance(values[0], torch.Tensor) else torch.tensor(values)
        return batch

    def _pad(self, texts: Sequence[Sequence[int]], multiple: int) -> dict[str, torch.Tensor]:
        assert self.tokenizer is not None
        length = -(-max(1, *map(len, texts)) // multiple) * multiple
        input_ids = torch.full((len(texts), length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for i, ids in enumerate(texts):
            input_ids[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            attention_mask[i, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def __call__(
        self,
        images: Sequence[ImageLike | None] | ImageLike | None = None,
        text: Sequence[str | None] | str | None = None,
        table: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | pd.DataFrame | None = None,
        labels: Sequence[Any] | None = None,
        return_tensors: str = "pt",
    ) -> dict[str, torch.Tensor]:
        """Make a batch from images, texts and table rows, for applications: ``model(**processor(...))``.

        Args:
            images: One image per case, None if missing; a single image is a batch of one.
            text: Complete texts, in the same form.
            table: Rows, each a dict of the columns, in the same form; or a data frame.
            labels: Class names or indices.
            return_tensors: Must be ``pt``; accepted for compatibility with transformers.

        Raises:
            ValueError: Nothing is given, or the lengths differ; also as :meth:`encode`.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r} is not supported; use 'pt' (torch tensors).")
        if isinstance(images, (str, os.PathLike, Image.Image, np.ndarray)):
            images = [images]
        text = [text] if isinstance(text, str) else text
        rows: Any = [table] if isinstance(table, Mapping) else table
        rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
        given = [column for column in (images, text, rows, labels) if column is not None]
        if not given or len({len(column) for column in given}) > 1 or not len(given[0]):
            lengths = ", ".join(str(len(column)) for column in given) or "nothing"
            raise ValueError(f"images, text, table and labels must have one length above 0, got {lengths}.")
        nothing: list[None] = [None] * len(given[0])
        given_labels = nothing if labels is None else labels
        cases = zip(images or nothing, text or nothing, given_labels, rows or nothing, strict=True)
        return self.collate([self.encode(image, words, label, table=row) for image, words, label, row in cases])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``tokenizer`` only says whether there is one.

        Without columns there is no key ``table``, as in files of earlier versions.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tokenizer", "table")}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        for name in _OPTIONAL:
            if values[name] is None or (name, values[name]) in (("task", DEFAULT), ("crop_mode", "center")):
                del values[name]  # so that earlier versions can read it
        table = {} if self.table is None else {"table": self.table.to_dict()}
        return {**values, **table, "tokenizer": self.tokenizer is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast | None = None) -> Processor:
        """Rebuild the processor from the result of :meth:`to_dict`.

        Raises:
            ValueError: A value is unknown, missing or out of range, or the tokenizer is missing or unexpected.
        """
        names = {f.name for f in fields(cls)}
        unknown, missing = sorted(values.keys() - names), sorted(names - values.keys() - {*_OPTIONAL, "table"})
        if unknown or missing:
            raise ValueError(f"Processor settings: unknown {unknown or 'none'}, missing {missing or 'none'}.")
        if values["tokenizer"] != (tokenizer is not None):
            raise ValueError(f"Processor settings have tokenizer: {values['tokenizer']}; pass one only if true.")
        try:
            return cls(**{"window": None, **values, "tokenizer": tokenizer})
        except (TypeError, AttributeError, KeyError, OverflowError) as error:
            raise ValueError(f"Processor settings: {one_line(error)}.") from error

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files, if there is one."""
        if self.tokenizer is not None:
            # Calls leave their truncation settings in the tokenizer; files must not depend on earlier calls.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
            self.tokenizer.save_pretrained(str(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``processor`` and ``label_names`` of ``folder/config.json`` (other keys are kept) and the tokenizer."""
        begin(Path(folder))
        self.save_tokenizer(Path(folder))
        update_config(Path(folder), {"label_names": list(self.labels), "processor": self.to_dict()})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Processor:
        """Load the files of :meth:`save_pretrained`, without network access.

        Raises:
            FileNotFoundError: ``config.json`` or ``tokenizer.json`` is missing.
            ValueError: A file is damaged or was edited, or holds unknown or missing settings.
        """
        path = Path(folder) / CONFIG
        values = read_foreign_json(path).get("processor")
        if not isinstance(values, dict):
            way = "save it with its model, mmfusion.save_pretrained(model, FOLDER, processor)"
            raise ValueError(f"{path} has no processor settings; {way}, or load the model alone with create_model.")
        check_files(Path(folder), CONFIG)
        try:
            return cls.from_dict(values, saved_tokenizer(Path(folder)) if values.get("tokenizer") else None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _table_inputs(numbers: Any, ids: Any) -> dict[str, Any]:
    """Model inputs of a row; kinds of columns that the processor does not have are omitted."""
    values = torch.as_tensor(numbers, dtype=torch.float32)
    categories = torch.as_tensor(ids, dtype=torch.int64)
    given = {"numeric_values": values, "category_ids": categories}
    inputs: dict[str, Any] = {name: each for name, each in given.items() if len(each)}
    return inputs | {"table_present": bool((~values.isnan()).any() or (categories != MISSING).any())}
