"""The folder of an ensemble: a list of its members, each a saved model in a subfolder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from mmfusion.artifacts.names import ENSEMBLE
from mmfusion.files import write_json

#: changes when the file does.
FORMAT_VERSION = 1


def write_ensemble(folder: Path, members: Mapping[str, Path]) -> None:
    """Write the folder of an ensemble, which predicts the mean of its members' calibrated probabilities.

    Args:
        folder: Folder to write to; its ``ensemble.json`` lists the members, the first of which says how data are read.
        members: Name -> folder of a saved model, which is copied; at least two.

    Raises:
        ValueError: Fewer than two.
    """
    if len(members) < 2:
        raise ValueError(f"An ensemble needs at least two models, got {len(members)}.")
    for name, source in members.items():
        shutil.copytree(source, folder / "members" / name)
    listed = [f"members/{name}" for name in members]
    write_json(folder / ENSEMBLE, {"format_version": FORMAT_VERSION, "members": listed})
