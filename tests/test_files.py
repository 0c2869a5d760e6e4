from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mmfusion.files import (
    one_writer,
    read_json,
    read_yaml,
    replacing,
    room_for,
    sole_writer,
    update_json,
    write_frame,
    write_json,
    write_yaml,
    written_table,
    written_whole,
)


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


@pytest.mark.parametrize(("content", "words"), [("{", "is not JSON"), ("[]", "a JSON list"), (None, "not exist")])
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


#: possible contents of a cell: line ends, quotes, delimiters, formulas, invisible characters.
CELLS = ["x\ry", "a\r\nb", "c\nd", "\r\n", 'say ""hi""', '"', "a,b;c\td", "=1", " edge ", "\x07\x1b", "\u2028", "é", ""]


@pytest.mark.parametrize("by", ["rows", "frame"])
def test_a_table_reads_back_as_it_was(tmp_path: Path, by: str) -> None:
    path = tmp_path / "t.csv"
    rows = [[first, second] for first in CELLS for second in CELLS]
    if by == "frame":
        write_frame(path, pd.DataFrame(rows, columns=["a", "b"]))
    else:
        with written_table(path) as table:
            table.writerows([["a", "b"], *rows])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file, strict=True)) == [["a", "b"], *rows]
    read = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert read.to_numpy().tolist() == rows
    assert path.read_bytes().startswith(b"a,b\n")


@pytest.mark.skipif(shutil.which("ssconvert") is None, reason="no spreadsheet program (gnumeric)")
def test_a_spreadsheet_program_reads_the_same_cells(tmp_path: Path) -> None:
    """Except for numbers and formulas, and a lone carriage return, where Gnumeric ends a row."""
    cells = [cell for cell in CELLS if cell not in ("x\ry", "=1")]
    rows = [["a", "b"], *([first, second] for first in cells for second in cells)]
    with written_table(tmp_path / "t.csv") as table:
        table.writerows([first, "between", second] for first, second in rows)
    how = ["-I", "Gnumeric_stf:stf_csvtab", "--import-encoding=UTF-8", "-T", "Gnumeric_stf:stf_csv"]
    subprocess.run(["ssconvert", *how, "t.csv", "read.csv"], cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / "read.csv").open(encoding="utf-8", newline="") as file:
        assert [[first, last] for first, _, last in csv.reader(file)] == rows


def test_half_of_a_character_is_written_as_an_escape(tmp_path: Path) -> None:
    with written_table(tmp_path / "t.csv") as table:
        table.writerow(["\ud800"])
    write_json(tmp_path / "t.json", {"a": "\ud800"})
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "\\ud800\n"
    assert read_json(tmp_path / "t.json") == {"a": "\ud800"}


def test_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 240}.csv"  # nearly the maximum length of names
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second
        first.write_text("one")
        second.write_text("two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def hold(path: str, held: Any, go: Any) -> None:
    with one_writer(path):
        held.set()
        go.wait(60)


@sole_writer
def verb(config: Any, output: str) -> str:
    return Path(output).name


def test_a_second_writer_is_refused_until_the_first_has_ended_or_was_killed(tmp_path: Path) -> None:
    """In a spawned process, which works on every system."""
    output = tmp_path / "new" / "run"
    context = multiprocessing.get_context("spawn")
    held, go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(output), held, go))
    process.start()
    assert held.wait(60)
    with pytest.raises(BlockingIOError, match="run is being written by another process"):
        verb(None, output=str(output))
    with pytest.raises(BlockingIOError), one_writer(tmp_path / "new" / ".." / "new" / "run"):
        pass
    process.kill()
    process.join()
    half = output.with_name(".run.0a1b2c3d.partial")
    half.touch()
    assert verb(None, output=str(output)) == "run" and not half.exists()


def test_what_nothing_was_written_to_is_gone(tmp_path: Path) -> None:
    with one_writer(tmp_path / "a/b/run"), one_writer(tmp_path / "a/other"):
        assert (tmp_path / "a/b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with one_writer(tmp_path / "a/b/run"):
        (tmp_path / "a/b/run").mkdir()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["run"]


def test_a_thread_is_refused_like_a_process(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        try:
            with one_writer(tmp_path / "run"):
                pass
        except BlockingIOError as error:
            refused.append(error)

    with one_writer(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    def refuse(_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with one_writer(tmp_path / "run"):
        pass
    assert f"The file system of {tmp_path / 'run'} has no locks" in caplog.text


def test_other_processes_of_torchrun_write_nothing_and_ask_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    with one_writer(tmp_path / "run"):
        monkeypatch.setenv("RANK", "1")
        with one_writer(tmp_path / "run"):
            pass
        monkeypatch.setenv("RANK", "0")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no file that is always full")
@pytest.mark.parametrize("library", ["text", "torch"])
def test_a_full_disk_is_one_line_whatever_writes(tmp_path: Path, library: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")
    match = r"no space left on the disk for .*t\.csv; free some"
    with pytest.raises(OSError, match=match) as caught, written_whole(path) as partial:
        partial.unlink()
        partial.symlink_to("/dev/full")
        if library == "torch":
            torch.save({"a": torch.zeros(100_000)}, partial)
        else:
            partial.write_text("x" * 100_000)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_of_safetensors_too(tmp_path: Path) -> None:
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="no space left"), room_for(tmp_path / "x"):
        raise SafetensorError(message)
    with pytest.raises(SafetensorError, match="else"), room_for(tmp_path / "x"):
        raise SafetensorError("something else")
    with pytest.raises(PermissionError), room_for(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no")
    with written_whole(tmp_path / "a.safetensors") as partial:
        save_file({"a": np.zeros(3)}, partial)


@pytest.mark.parametrize("content", ["", "- a", "a: !!python/object/apply:os.getcwd []", "a: [", "\x00"])
def test_what_is_no_settings_file_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml (is not YAML|has no settings)") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    write_yaml(path, {"a": "é\ud800"})
    assert read_yaml(path)["a"].startswith("é")
