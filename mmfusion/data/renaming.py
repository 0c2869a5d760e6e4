"""Reading step: rename columns."""

from dataclasses import replace

from mmfusion.data.reading import Reading
from mmfusion.names import did_you_mean


def rename_columns(reading: Reading) -> Reading:
    """Rename columns according to ``dataset.columns``: name used here -> name in the table.

    Raises:
        ValueError: The column does not exist, or the table has another one with the new name.
    """
    raw, wanted = reading.raw, reading.config.columns
    if not wanted:
        return reading
    for name, column in wanted.items():
        if column not in raw.columns:
            near = did_you_mean(column, list(raw.columns))
            raise ValueError(f"{raw.source} has no column {column!r} (dataset.columns, for {name!r}); {near}")
        if name in raw.columns and name not in wanted.values():
            both = f"{raw.source} has a column {name!r}, and dataset.columns gives {column!r} that name"
            raise ValueError(f"{both}; remove {name} from dataset.columns, or rename the table's own column there.")
    names = {column: name for name, column in wanted.items()}
    columns = {names.get(column, column): cells for column, cells in raw.columns.items()}
    return replace(reading, raw=replace(raw, columns=columns))
