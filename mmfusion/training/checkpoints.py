"""Resumable states: sealed when whole, so that a run killed at any moment can go on."""

import re
import shutil
from pathlib import Path

from mmfusion.files import read_json, sha256, write_json

#: The last file that a state gets: the name and SHA-256 of every other one (its size, where hashes were not kept yet).
SEAL = "complete.json"


def seal(state: Path) -> None:
    """Mark a state as complete, once all of its files are written."""
    write_json(state / SEAL, {file.name: sha256(file) for file in sorted(state.iterdir()) if file.name != SEAL})


def is_complete(state: Path) -> bool:
    """Whether the state was sealed, and still holds every file as it was then."""
    try:
        kept = read_json(state / SEAL)
        return all(was in ((state / name).stat().st_size, sha256(state / name)) for name, was in kept.items())
    except (OSError, ValueError):
        return False


def states(root: Path) -> list[Path]:
    """The states below a folder, complete or not, oldest step first."""
    found = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))]
    return [path for _, path in sorted(found)]


def complete(root: Path) -> list[Path]:
    """The complete states below a folder, newest step first."""
    return [state for state in reversed(states(root)) if is_complete(state)]


def prune(root: Path, keep: int = 2) -> None:
    """Delete the states that were left half-written, and all but the newest ``keep`` that were sealed."""
    kept = [state for state in states(root) if (state / SEAL).is_file()][-keep:]
    for state in states(root):
        if state not in kept:
            shutil.rmtree(state)
