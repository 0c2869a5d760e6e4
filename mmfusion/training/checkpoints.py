"""Resumable states: sealed when whole, so that a run killed at any moment can go on."""

import re
import shutil
from pathlib import Path

from mmfusion.files import read_json, write_json

#: The last file that a state gets: the name and size of every other one.
SEAL = "complete.json"


def seal(state: Path) -> None:
    """Mark a state as complete, once all of its files are written."""
    sizes = {file.name: file.stat().st_size for file in sorted(state.iterdir()) if file.name != SEAL}
    write_json(state / SEAL, sizes)


def is_complete(state: Path) -> bool:
    """Whether the state was sealed, and still holds every file at its full size."""
    try:
        sizes = read_json(state / SEAL)
        return all((state / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def states(root: Path) -> list[Path]:
    """The states below a folder, complete or not, oldest step first."""
    found = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))]
    return [path for _, path in sorted(found)]


def newest_complete(root: Path) -> Path | None:
    """The state to go on from; None where there is none."""
    return next((state for state in reversed(states(root)) if is_complete(state)), None)


def prune(root: Path, keep: int = 2) -> None:
    """Delete the states that were left half-written, and all but the newest ``keep`` complete ones."""
    kept = [state for state in states(root) if is_complete(state)][-keep:]
    for state in states(root):
        if state not in kept:
            shutil.rmtree(state)
