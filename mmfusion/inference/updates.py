"""Updates of a model's probabilities for another site, as files beside the model."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion.decisions import Decisions
from mmfusion.files import read_json

#: folder of the updates that are stored with a model.
FOLDER = "calibrations"

#: the calibration of a model without one, which an update is then added to.
UNFITTED: Mapping[str, Any] = {"temperature": 1.0, "fitted_on": "none", "n": 0}


def update_path(name: str | os.PathLike[str], folder: Path) -> Path:
    """The file of an update: a path, or the name of one in the model's folder.

    Raises:
        FileNotFoundError: There is no such file; the message names those that are stored.
    """
    stored = folder / FOLDER / f"{os.fspath(name)}.json"
    is_name = Path(name).name == os.fspath(name)
    path = stored if is_name and stored.is_file() else Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (folder / FOLDER).glob("*.json"))) or "none"
        raise FileNotFoundError(f"calibration {os.fspath(name)!r} is no file; stored with the model: {known}.")
    return path


def read_update(
    name: str | os.PathLike[str], folder: Path, config: Mapping[str, Any]
) -> tuple[dict[str, Any], Decisions]:
    """An update for the model of a folder, and the operating points chosen with it.

    Args:
        name: File, or name of one in ``calibrations``.
        folder: Of the model.
        config: Its ``config.json``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or was made for another model.
    """
    path = update_path(name, folder)
    try:
        update = read_json(path)
        slope, intercept = update["slope"], update["intercept"]
        numbers = [*slope, *intercept]
        whole = len(slope) == len(intercept) == len(update["labels"]) and {"site", "kind", "n"} <= update.keys()
        if not whole or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            raise ValueError("slope and intercept are a number for each class")
        decisions = Decisions.from_dict(update.get("decisions"), update["labels"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no update that mmfusion validate wrote ({error}).") from None
    if update["labels"] != config.get("label_names") or update.get("weights_sha256") != config.get("weights_sha256"):
        raise ValueError(f"{path} was made for another model; mmfusion validate makes one for this.")
    return {key: update[key] for key in ("slope", "intercept", "site", "kind", "n")}, decisions
