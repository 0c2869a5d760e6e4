"""A step of reading: columns under the names that they have here."""

from dataclasses import replace

from mmfusion.data.reading import Reading
from mmfusion.names import did_you_mean


def rename_columns(reading: Reading) -> Reading:
    """Give columns the names that ``dataset.columns`` says: name here -> name in the table.

    Raises:
        ValueError: The table has no such column, or has another one of the new name.
    """
    raw, wanted = reading.raw, reading.config.columns
    if not wanted:
        return reading
    for name, column in wanted.items():
        if column not in raw.columns:
            near = did_you_mean(column, list(raw.columns))
            raise ValueError(f"{raw.source} has no column {column!r} (dataset.columns, for {name!r}); {near}")
        if name in raw.columns and name not in wanted.values():
            both = f"{raw.source} has a column {name!r}, and dataset.columns takes {column!r} for it"
            raise ValueError(f"{both}; leave {name} out of dataset.columns, or give its own column another name there.")
    names = {column: name for name, column in wanted.items()}
    columns = {names.get(column, column): cells for column, cells in raw.columns.items()}
    return replace(reading, raw=replace(raw, columns=columns))
