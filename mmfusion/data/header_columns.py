"""Reading step: DICOM header fields as columns (``dataset.header_columns``)."""

from dataclasses import replace
from pathlib import Path

from mmfusion.data.formats import image_column
from mmfusion.data.image_folder import ImageFolder, find_image_root, open_image_folder
from mmfusion.data.reading import Reading
from mmfusion.images.header_facts import fact_text
from mmfusion.images.kinds import IMAGE_SUFFIXES, image_kind


def add_header_columns(reading: Reading) -> Reading:
    """Fill the columns of ``dataset.header_columns``; they stay empty in rows without a DICOM file.

    Raises:
        ValueError: The table already has a column of that name, or has no image column.
        ImportError: pydicom is not installed.
    """
    wanted, raw = reading.config.header_columns, reading.raw
    if not wanted:
        return reading
    column = image_column(raw, reading.config)
    if column is None:
        raise ValueError(f"dataset.header_columns: {raw.source} has no image column.")
    if there := sorted(wanted.keys() & raw.columns.keys()):
        raise ValueError(f"dataset.header_columns: {raw.source} already has a column {there[0]!r}; use another name.")
    values = [str(cell).strip() if cell else None for cell in raw.columns[column]]
    root = find_image_root(reading.folder, reading.config, values)
    folder = open_image_folder(reading.folder, root, reading.config, IMAGE_SUFFIXES)
    facts = [_facts(folder, value, set(wanted.values())) for value in values]
    cells = {name: [found.get(fact) for found in facts] for name, fact in wanted.items()}
    return replace(reading, raw=replace(raw, columns={**raw.columns, **cells}))


def _facts(folder: ImageFolder, value: str | None, facts: set[str]) -> dict[str, str | None]:
    """Header fields of the DICOM file, or of the first one in a series folder; empty if there is no such file."""
    from mmfusion.images.dicom_files import read_header, series_files

    try:
        path = Path(folder.root) / folder.find(value) if value else None
        if path is not None and path.is_dir():
            path = next(series_files(path), None)
        if path is None or image_kind(path) != "dicom":
            return {}
        header = read_header(path, sorted(facts))
    except ValueError:  # a wrong path or damaged file is reported with the other problems of the row
        return {}
    return {fact: fact_text(fact, header.get(fact)) for fact in facts}
