"""Coverage of a data set: number of rows with an image, a text, and each column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmfusion.data.cases import CaseTable
from mmfusion.text.template import render, template_fields


@dataclass(frozen=True)
class Contents:
    """Coverage of the inputs over the rows.

    Attributes:
        rows: Number of rows.
        image: Rows with at least one image.
        text: Rows with a text, free or from the template.
        columns: Column that the model reads (in its template or as an input) -> rows with a value.
    """

    rows: int
    image: int
    text: int
    columns: dict[str, int]

    def line(self, what: str = "rows") -> str:
        """One line, such as ``426 rows: image 426, text 0, columns age 80 %, sex 100 %``."""
        shares = ", ".join(f"{name} {_percent(count, self.rows)}" for name, count in self.columns.items())
        columns = f", columns {shares}" if shares else ""
        return f"{self.rows:,} {what}: image {self.image:,}, text {self.text:,}{columns}"


def contents_of(
    cases: CaseTable, *, template: str | None, missing_values: Iterable[str], columns: Sequence[str] = ()
) -> Contents:
    """Count the rows that have each input.

    Args:
        cases: The rows.
        template: Text template that the model reads, or None.
        missing_values: Cell texts that count as missing.
        columns: Further columns that the model reads.
    """
    frame, fields = cases.frame, template_fields(template) if template else ()
    has_text = frame["text"].notna().tolist()
    if template:
        nothing = [None] * len(frame)
        columns_there = [frame[name].tolist() if name in frame.columns else nothing for name in fields]
        cells = list(zip(*columns_there, strict=True)) if fields else [()] * len(frame)
        missing = tuple(missing_values)
        made = {cell: bool(render(template, dict(zip(fields, cell, strict=True)), missing)) for cell in set(cells)}
        has_text = [given or made[cell] for given, cell in zip(has_text, cells, strict=True)]
    named = dict.fromkeys((*fields, *columns))
    present = {name: int(frame[name].notna().sum()) if name in frame.columns else 0 for name in named}
    return Contents(len(frame), int(frame["image"].notna().sum()), sum(has_text), present)


def _percent(count: int, rows: int) -> str:
    """Percentage without decimals; 0 and 100 only for none and all."""
    share = 100 * count / max(rows, 1)
    return f"{round(share) if count in (0, rows) else min(max(round(share), 1), 99)} %"
