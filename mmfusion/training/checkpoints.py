"""Resumable checkpoints, sealed when complete, so that a killed run can continue."""

import re
import shutil
from pathlib import Path

from mmfusion.files import read_json, sha256, write_json

#: Last file written to a checkpoint: name and SHA-256 of all others (only the size in older versions).
SEAL = "complete.json"


def seal(state: Path) -> None:
    """Mark a checkpoint as complete after all its files are written."""
    write_json(state / SEAL, {file.name: sha256(file) for file in sorted(state.iterdir()) if file.name != SEAL})


def is_complete(state: Path) -> bool:
    """Whether a checkpoint is sealed and its files are unchanged."""
    try:
        kept = read_json(state / SEAL)
        return all(was in ((state / name).stat().st_size, sha256(state / name)) for name, was in kept.items())
    except (OSError, ValueError):
        return False


def states(root: Path) -> list[Path]:
    """All checkpoints in a folder, complete or not, oldest step first."""
    found = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))]
    return [path for _, path in sorted(found)]


def complete(root: Path) -> list[Path]:
    """Complete checkpoints in a folder, newest step first."""
    return [state for state in reversed(states(root)) if is_complete(state)]


def prune(root: Path, keep: int = 2) -> None:
    """Delete incomplete checkpoints and all but the newest ``keep`` complete ones."""
    kept = [state for state in states(root) if (state / SEAL).is_file()][-keep:]
    for state in states(root):
        if state not in kept:
            shutil.rmtree(state)
