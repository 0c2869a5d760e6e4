"""Data that the checks of an audit use."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.splits import group_codes
from mmfusion.files import sha256, short_hash
from mmfusion.images.grey_values import as_rgb
from mmfusion.text.template import render, template_fields

SIDE = 32  # of a thumbnail, in pixels


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image.

    Attributes:
        digest: Hash of the file's bytes, or of those of all files of a series.
        size: Width and height in pixels.
        mode: Pillow's name of the pixel format.
        thumbnail: (SIDE, SIDE) uint8, grayscale.
    """

    digest: str
    size: tuple[int, int]
    mode: str
    thumbnail: np.ndarray


def look_at(path: Path, image: Image.Image) -> ImageFacts:
    """The facts of a decoded image."""
    thumbnail = as_rgb(image, flat=True).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return ImageFacts(_digest(path), image.size, image.mode, np.asarray(thumbnail))


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the hashes of all files in a series folder."""
    if path.is_file():
        return sha256(path)
    return short_hash([sha256(file) for file in sorted(path.rglob("*")) if file.is_file()])


@dataclass
class AuditedData:
    """A data set under audit.

    Attributes:
        cases: The rows without problems, each in a split.
        dataset: How to read the data.
        facts: Image -> its facts.
    """

    cases: CaseTable
    dataset: DatasetConfig
    facts: dict[str, ImageFacts]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows."""
        return self.cases.frame

    @cached_property
    def labels(self) -> np.ndarray:
        """(rows,) class of each row."""
        return self.frame["label"].to_numpy(dtype=object)

    @cached_property
    def groups(self) -> np.ndarray:
        """(rows,) group number of each row; a row without a group is its own."""
        return group_codes(self.frame["group"].tolist(), len(self.frame))

    @cached_property
    def sentences(self) -> list[str | None]:
        """The sentence of the text template for each row."""
        template, missing = self.dataset.text_template or "", self.dataset.missing_values
        there = [name for name in self.inputs if name in self.frame]
        rows = zip(*(self.frame[name] for name in there), strict=True) if there else [()] * len(self.frame)
        return [render(template, dict(zip(there, row, strict=True)), missing) or None for row in rows]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Metadata columns used in the text."""
        return template_fields(self.dataset.text_template or "")

    def present(self) -> dict[str, np.ndarray]:
        """Modality -> (rows,) whether the row has it: ``image``, or each view; ``text``."""
        images = self.frame["image"].tolist()
        found: dict[str, list[bool]] = {}
        if self.cases.layout == "views":
            names = self.dataset.view_columns or self.dataset.views
            for i in range(max((len(views) for views in images if views), default=0)):
                name = f"view {names[i] if names else i + 1}"
                found[name] = [views is not None and views[i] is not None for views in images]
        else:
            found["image"] = [image is not None for image in images]
        texts = zip(self.frame["text"], self.sentences, strict=True)
        found["text"] = [text is not None or sentence is not None for text, sentence in texts]
        return {name: np.array(values, dtype=bool) for name, values in found.items()}
