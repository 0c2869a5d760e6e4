"""What the checks of an audit look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mmfusion.auditing.image_facts import ImageFacts
from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.splits import group_codes
from mmfusion.text.template import render, template_fields


@dataclass
class AuditedData:
    """A data set under audit.

    Attributes:
        cases: The rows without a problem of their own, each in a split.
        dataset: How they were read.
        facts: Image -> what was seen of it.
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
        """(rows,) number of each row's group; a row without one is its own."""
        return group_codes(self.frame["group"].tolist(), len(self.frame))

    @cached_property
    def sentences(self) -> list[str | None]:
        """What the text template makes of each row."""
        template = self.dataset.text_template
        if template is None:
            return [None] * len(self.frame)
        rows = self.frame.to_dict("records")
        return [render(template, row, self.dataset.missing_values) or None for row in rows]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Metadata columns that enter the text."""
        return template_fields(self.dataset.text_template) if self.dataset.text_template else ()

    def present(self) -> dict[str, np.ndarray]:
        """Modality -> (rows,) whether the row has it: ``image``, or each view; ``text``."""
        images = self.frame["image"].tolist()
        found: dict[str, list[bool]] = {}
        if self.cases.layout == "views":
            names = self.dataset.view_columns or self.dataset.views
            count = max((len(views) for views in images if views), default=0)
            for i in range(count):
                name = names[i] if names else str(i + 1)
                found[f"view {name}"] = [views is not None and views[i] is not None for views in images]
        else:
            found["image"] = [image is not None for image in images]
        texts = zip(self.frame["text"], self.sentences, strict=True)
        found["text"] = [text is not None or sentence is not None for text, sentence in texts]
        return {name: np.array(values, dtype=bool) for name, values in found.items()}
