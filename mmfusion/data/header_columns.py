"""A step of reading: facts of DICOM headers as columns (``dataset.header_columns``)."""

from dataclasses import replace
from pathlib import Path

from mmfusion.data.formats import image_column
from mmfusion.data.image_folder import ImageFolder, find_image_root, open_image_folder
from mmfusion.data.reading import Reading
from mmfusion.images.header_facts import fact_text
from mmfusion.images.kinds import IMAGE_SUFFIXES, image_kind


def add_header_columns(reading: Reading) -> Reading:
    """Fill the columns that ``dataset.header_columns`` names; of a row without a DICOM file they stay empty.

    Raises:
        ValueError: The table has a column of that name, or none with images.
        ImportError: pydicom is not installed.
    """
    wanted, raw = reading.config.header_columns, reading.raw
    if not wanted:
        return reading
    column = image_column(raw, reading.config)
    if column is None:
        raise ValueError(f"dataset.header_columns: {raw.source} has no column of images.")
    if there := sorted(wanted.keys() & raw.columns.keys()):
        raise ValueError(f"dataset.header_columns: {raw.source} has a column {there[0]!r} already; give another name.")
    values = [str(cell).strip() if cell else None for cell in raw.columns[column]]
    root = find_image_root(reading.folder, reading.config, values)
    folder = open_image_folder(reading.folder, root, reading.config, IMAGE_SUFFIXES)
    facts = [_facts(folder, value, set(wanted.values())) for value in values]
    cells = {name: [found.get(fact) for found in facts] for name, fact in wanted.items()}
    return replace(reading, raw=replace(raw, columns={**raw.columns, **cells}))


def _facts(folder: ImageFolder, value: str | None, facts: set[str]) -> dict[str, str | None]:
    """Facts of the DICOM file, or of the first one below the folder of a series; none where there is no such file."""
    from mmfusion.images.dicom_files import read_header, series_files

    try:
        path = Path(folder.root) / folder.find(value) if value else None
        if path is not None and path.is_dir():
            path = next(series_files(path), None)
        if path is None or image_kind(path) != "dicom":
            return {}
        header = read_header(path, sorted(facts))
    except ValueError:  # a wrong path, or a damaged file: told with the other problems of the row
        return {}
    return {fact: fact_text(fact, header.get(fact)) for fact in facts}
