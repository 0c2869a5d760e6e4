"""The folder of an ensemble: a list of its members, each a saved model in a subfolder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from mmfusion.artifacts.names import ENSEMBLE
from mmfusion.files import write_json

#: Incremented when the file format changes.
FORMAT_VERSION = 1


def write_ensemble(folder: Path, members: Mapping[str, Path]) -> None:
    """Write the folder of an ensemble, which averages its members' calibrated probabilities.

    Args:
        folder: Output folder; its ``ensemble.json`` lists the members, the first of which defines how data are read.
        members: Name -> folder of a saved model to copy; at least two.

    Raises:
        ValueError: There are fewer than two members.
    """
    if len(members) < 2:
        raise ValueError(f"An ensemble needs at least two models, got {len(members)}.")
    for name, source in members.items():
        shutil.copytree(source, folder / "members" / name)
    listed = [f"members/{name}" for name in members]
    write_json(folder / ENSEMBLE, {"format_version": FORMAT_VERSION, "members": listed})
