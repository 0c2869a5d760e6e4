"""Updates of a model's probabilities for another site, stored as files with the model."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion.decisions import Decisions
from mmfusion.files import read_json

#: Folder of updates stored with a model.
FOLDER = "calibrations"

#: Default calibration to which an update is added.
UNFITTED: Mapping[str, Any] = {"temperature": 1.0, "fitted_on": "none", "n": 0}


def update_path(name: str | os.PathLike[str], folder: Path) -> Path:
    """The file of an update, given a path or the name of one in the model's folder.

    Raises:
        FileNotFoundError: The file does not exist; the message lists stored updates.
    """
    stored = folder / FOLDER / f"{os.fspath(name)}.json"
    is_name = Path(name).name == os.fspath(name)
    path = stored if is_name and stored.is_file() else Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (folder / FOLDER).glob("*.json"))) or "none"
        raise FileNotFoundError(f"calibration {os.fspath(name)!r} is not a file; stored with the model: {known}.")
    return path


def read_update(
    name: str | os.PathLike[str], folder: Path, config: Mapping[str, Any]
) -> tuple[dict[str, Any], Decisions]:
    """Read an update for the model in a folder, and its operating points.

    Args:
        name: File, or name of one in ``calibrations``.
        folder: Folder of the model.
        config: Its ``config.json``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is damaged or belongs to another model.
    """
    path = update_path(name, folder)
    try:
        update = read_json(path)
        slope, intercept = update["slope"], update["intercept"]
        numbers = [*slope, *intercept]
        whole = len(slope) == len(intercept) == len(update["labels"]) and {"site", "kind", "n"} <= update.keys()
        if not whole or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            raise ValueError("slope and intercept need a number for each class")
        decisions = Decisions.from_dict(update.get("decisions"), update["labels"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an update written by mmfusion validate ({error}).") from None
    if update["labels"] != config.get("label_names") or update.get("weights_sha256") != config.get("weights_sha256"):
        raise ValueError(f"{path} belongs to another model; create an update for this one with mmfusion validate.")
    return {key: update[key] for key in ("slope", "intercept", "site", "kind", "n")}, decisions
