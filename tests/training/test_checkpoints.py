from __future__ import annotations

from pathlib import Path

import pytest

from mmfusion import files
from mmfusion.training import checkpoints


def write_state(root: Path, step: int, *, sealed: bool = True) -> Path:
    state = root / f"checkpoint-{step}"
    state.mkdir()
    (state / "optimizer.pt").write_bytes(b"0123456789")
    if sealed:
        checkpoints.seal(state)
    return state


def test_the_newest_complete_state_is_found_by_number(tmp_path: Path) -> None:
    assert checkpoints.complete(tmp_path) == []
    write_state(tmp_path, 9)
    wanted = write_state(tmp_path, 10)
    write_state(tmp_path, 11, sealed=False)
    assert checkpoints.complete(tmp_path)[0] == wanted


@pytest.mark.parametrize("damage", ["truncated", "missing", "seal", "bit"])
def test_a_damaged_state_is_not_complete(tmp_path: Path, damage: str) -> None:
    state = write_state(tmp_path, 3)
    if damage == "truncated":
        (state / "optimizer.pt").write_bytes(b"0123")
    elif damage == "bit":
        (state / "optimizer.pt").write_bytes(b"0123456788")
    elif damage == "missing":
        (state / "optimizer.pt").unlink()
    else:
        (state / checkpoints.SEAL).write_text('{"optimizer.pt"')
    assert not checkpoints.is_complete(state)
    assert checkpoints.complete(tmp_path) == []


def test_prune_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (2, 4, 6, 10):
        write_state(tmp_path, step, sealed=step != 10)
    checkpoints.prune(tmp_path)
    assert [state.name for state in checkpoints.states(tmp_path)] == ["checkpoint-4", "checkpoint-6"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    for text in ("first", "second"):
        with files.replacing(folder) as partial:
            (partial / "file").write_text(text)
            assert not folder.exists() or (folder / "file").read_text() == "first"
        assert (folder / "file").read_text() == text
    with pytest.raises(RuntimeError), files.replacing(folder) as partial:
        (partial / "file").write_text("third")
        raise RuntimeError
    assert (folder / "file").read_text() == "second"
    files.recover(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_two_renames_is_healed(tmp_path: Path) -> None:
    previous = tmp_path / "best.previous"
    previous.mkdir()
    (previous / "file").write_text("old")
    (tmp_path / "best.partial").mkdir()
    files.recover(tmp_path / "best")
    assert (tmp_path / "best" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
