"""Reading step: columns, such as the label, from a second table."""

from dataclasses import replace

from mmfusion.data.presets import LESIONS
from mmfusion.data.reading import Reading
from mmfusion.data.tables import read_table
from mmfusion.text.template import cell_text


def join_labels(reading: Reading) -> Reading:
    """Join the columns of ``dataset.labels_table`` to the rows on ``dataset.join_on``.

    Without these options, lesions of a public data set that are published in a separate table become its groups.

    Rows without a match get None in the added columns; a broken line in the second table breaks its row.
    For prediction only, the second table may be missing.

    Raises:
        ValueError: Only one of the two options is given, the column does not exist, or the second table has a value
            twice.
        FileNotFoundError: The table does not exist.
    """
    raw, config = reading.raw, reading.config
    if config.labels_table is None and config.join_on is None:
        return _with_lesions(reading)
    if config.labels_table is None or config.join_on is None:
        raise ValueError("dataset.labels_table and dataset.join_on must be given together; one of them is missing.")
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
            raise ValueError(f"{twice}; values of dataset.join_on must be unique there.")
    matches = [rows.get(value) if value is not None else None for value in map(cell_text, raw.columns[key])]
    new = {name: cells for name, cells in other.columns.items() if name not in raw.columns}
    added = {name: [None if match is None else cells[match - 1] for match in matches] for name, cells in new.items()}
    broken = {
        row: f"{other.source}, row {match}: {other.broken[match]}"
        for row, match in enumerate(matches, start=1)
        if match in other.broken
    }
    return replace(reading, raw=replace(raw, columns=raw.columns | added, broken=broken | raw.broken))


def _with_lesions(reading: Reading) -> Reading:
    """Use the lesions of a public data set as groups, if their table is in the same folder."""
    raw, config = reading.raw, reading.config
    name, image, lesion = LESIONS.get(raw.source, ("", "", ""))
    if not name or config.group_column is not None or "group" in raw.columns:
        return reading
    path = next((path for path in (reading.folder / name, *reading.folder.glob(f"*/{name}")) if path.is_file()), None)
    if path is None:
        return reading
    other = read_table(path)
    if not {image, lesion} <= other.columns.keys():
        return reading
    groups = dict(zip(map(cell_text, other.columns[image]), other.columns[lesion], strict=True))
    cells = [groups.get(cell_text(value)) for value in raw.columns.get(image, [None] * len(raw))]
    notes = [*raw.notes, f"the column {lesion!r} of {name} is used as the group"]
    return replace(reading, raw=replace(raw, columns=raw.columns | {"group": cells}, notes=notes))
