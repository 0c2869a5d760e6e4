from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmfusion.files import read_json, replacing, update_json, write_json, written_whole


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as partial:
        assert partial.suffix == ".csv"
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with written_whole(path) as partial:
        partial.write_text("new")
        partial.chmod(0o600)
        assert path.read_text() == "old"
    other = tmp_path / "b"
    other.touch()
    assert path.read_text() == "new" and path.stat().st_mode == other.stat().st_mode
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "b"]


def test_entries_are_laid_over_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert update_json(path, {"a": 1, "b": "ä"}) == {"a": 1, "b": "ä"}
    assert update_json(path, {"a": 2}) == read_json(path) == {"a": 2, "b": "ä"}
    assert "ä" in path.read_text(encoding="utf-8") and json.loads(path.read_text(encoding="utf-8"))["a"] == 2
    write_json(path, {"c": 3})
    assert read_json(path) == {"c": 3}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as editors on Windows write it
    assert read_json(path) == {"c": 3}


@pytest.mark.parametrize(("content", "words"), [("{", "is not JSON"), ("[]", "holds a JSON list"), (None, "not exist")])
def test_what_is_no_object_is_told_in_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    with replacing(folder) as partial:
        (partial / "x").write_text("1")
    with pytest.raises(RuntimeError), replacing(folder) as partial:
        (partial / "y").write_text("2")
        raise RuntimeError
    assert [file.name for file in folder.iterdir()] == ["x"] and list(tmp_path.iterdir()) == [folder]
