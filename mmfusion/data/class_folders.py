"""Labels, splits and patients of images from the names of their folders."""

from collections.abc import Sequence
from typing import Any

#: Split name in a table or folder -> name used here.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def folder_labels(images: Sequence[str | None]) -> list[str | None]:
    """Class of each image from its folder (``train/cat/1.png``: ``cat``), ignoring ``images`` and split names."""
    folders = [[None, *(image or "").split("/")][-2] for image in images]
    return [name if name is not None and name.lower() not in (*SPLIT_NAMES, "images") else None for name in folders]


def folder_splits(images: Sequence[str | None]) -> list[str | None]:
    """Split of each image from its first folder; None if that is not the name of a split."""
    firsts = (image.split("/")[0] if image and "/" in image else "" for image in images)
    return [first if first.lower() in SPLIT_NAMES else None for first in firsts]


def patient_folders(images: Sequence[str]) -> tuple[list[str], list[str | None], str] | None:
    """Classes, patients and a log line, if the folders below the classes are patients.

    This is the case if each inner folder is in one outer folder (``mel/patient1/1.jpg``). If each inner folder is in
    several outer ones (``site1/mel/1.jpg``), the inner ones are the classes and the result is None.

    Raises:
        ValueError: Some inner folders are in one outer folder and some in several.
    """
    folders = [_meaningful(image) for image in images]
    outer: dict[str, set[str]] = {}
    for parts in folders:
        if len(parts) > 1:
            outer.setdefault(parts[1], set()).add(parts[0])
    classes = sorted({parts[0] for parts in folders if parts})
    if not outer or len(classes) < 2:
        return None
    alone = [name for name, above in outer.items() if len(above) == 1]
    if not alone:
        return None
    if len(alone) < len(outer):
        shared = next(name for name in outer if name not in alone)
        raise ValueError(
            f"Cannot tell which folders are the classes: {alone[0]!r} is only in {next(iter(outer[alone[0]]))!r}, but "
            f"{shared!r} is in {' and '.join(sorted(outer[shared])[:2])}; "
            "write a table with the columns image and label."
        )
    groups = [f"{parts[0]}/{parts[1]}" if len(parts) > 1 else None for parts in folders]
    shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    told = f"the {len(classes)} outer folders ({shown}) are the classes"
    return [parts[0] for parts in folders], groups, f"{told}, the {len(outer):,} folders inside them are patients"


def with_patients(columns: dict[str, list[Any]], label_column: str, group_column: str | None) -> list[str]:
    """Add label and group to the column ``file_name`` if folders are patients; returns log lines."""
    images = columns["file_name"]
    found = patient_folders(images) if None not in folder_labels(images) else None
    if found is None:
        return []
    columns[label_column], groups, told = found
    if group_column != "none":
        columns[group_column or "group"] = groups
    return [told]


def _meaningful(image: str) -> list[str]:
    """Folders of an image, without split names and ``images``."""
    parts = image.split("/")[:-1]
    return [part for i, part in enumerate(parts) if part.lower() != "images" and (i or part.lower() not in SPLIT_NAMES)]
