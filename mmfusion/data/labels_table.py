"""A step of reading: columns, such as the label, that stand in a second table."""

from dataclasses import replace

from mmfusion.data.reading import Reading
from mmfusion.data.tables import read_table
from mmfusion.text.template import cell_text


def join_labels(reading: Reading) -> Reading:
    """Add the columns of ``dataset.labels_table`` to the rows that agree with it in ``dataset.join_on``.

    A row whose value the second table lacks has None in the added columns; one whose line there is broken is broken.
    Where the data are only predicted, the second table may be absent.

    Raises:
        ValueError: One of the two options without the other, no such column, or a value twice in the second table.
        FileNotFoundError: There is no such table.
    """
    raw, config = reading.raw, reading.config
    if config.labels_table is None and config.join_on is None:
        return reading
    if config.labels_table is None or config.join_on is None:
        raise ValueError("dataset.labels_table and dataset.join_on go together; one of them is missing.")
    path, key = reading.folder / config.labels_table, config.join_on
    if not reading.require_labels and not (path.is_file() and key in raw.columns):
        return reading
    other = read_table(path)
    for table in (raw, other):
        if key not in table.columns:
            there = ", ".join(table.columns)
            raise ValueError(f"{table.source} has no column {key!r} (dataset.join_on); it has {there}.")
    rows: dict[str, int] = {}
    for row, value in enumerate(map(cell_text, other.columns[key]), start=1):
        if value is not None and rows.setdefault(value, row) != row:
            twice = f"{other.source} has {key} {value!r} in rows {rows[value]} and {row}"
            raise ValueError(f"{twice}; dataset.join_on needs one row a value.")
    matches = [rows.get(value) if value is not None else None for value in map(cell_text, raw.columns[key])]
    new = {name: cells for name, cells in other.columns.items() if name not in raw.columns}
    added = {name: [None if match is None else cells[match - 1] for match in matches] for name, cells in new.items()}
    broken = {
        row: f"{other.source}, row {match}: {other.broken[match]}"
        for row, match in enumerate(matches, start=1)
        if match in other.broken
    }
    return replace(reading, raw=replace(raw, columns=raw.columns | added, broken=broken | raw.broken))
