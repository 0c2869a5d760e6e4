"""Reading step: one label from the cells of several label columns."""

from dataclasses import replace

from mmfusion.data.reading import Reading
from mmfusion.task import task_named
from mmfusion.text.template import cell_text


def join_label_cells(reading: Reading) -> Reading:
    """Join the label columns into one cell, as the task defines. Rows with invalid values are broken."""
    raw, config = reading.raw, reading.config
    cells, names = raw.columns.get(config.label_column), config.label_columns
    if not names or cells is None or not all(isinstance(cell, tuple) for cell in cells):
        return reading
    task, missing = task_named(config.task), frozenset(config.missing_values)
    labels: list[str | None] = []
    broken: dict[int, str] = {}
    for row, values in enumerate(cells, start=raw.skipped + 1):
        texts = [cell_text(value, missing) for value in values]
        label, fault = task.joined_cell(dict(zip(names, texts, strict=True)))
        labels.append(label)
        if fault and reading.require_labels:
            broken[row] = fault
    columns = {**raw.columns, config.label_column: labels}
    return replace(reading, raw=replace(raw, columns=columns, broken=broken | raw.broken))
