"""Progress lines."""

from __future__ import annotations

import pytest

from mmfusion import progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (45.4, "45 s"), (99.9, "100 s"), (100, "2 min"), (720, "12 min"), (5400, "1.5 h")],
)
def test_in_words(seconds: float, words: str) -> None:
    assert progress.in_words(seconds) == words


def test_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 steps of 30 s, 2 of them done before: one line per minute, with the rate of the new steps."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    beat = progress.Heartbeat("epoch 1/3", total=10, done=2, every=60, tell=lines.append)
    for _ in range(8):
        clock[0] += 30
        beat.update()
    assert len(lines) == 4
    assert lines[0] == "epoch 1/3: 4 of 10 steps, 0.0333 a second, 3 min left"
    assert lines[-1].endswith("10 of 10 steps, 0.0333 a second, 0 s left")


def test_in_a_log_rows_are_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """50 rows of an unknown number, then 6 of 6; a terminal has a bar instead."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.progress("Predicting", None) as bar:
        for _ in range(2):
            clock[0] += 40
            bar.update(25)
    for _ in progress.tracked(range(6), "Explaining", 6):
        clock[0] += 25
    assert capsys.readouterr().out.splitlines() == [
        "Predicting: 50 rows, 0.625 a second",
        "Explaining: 3 of 6 rows, 0.04 a second, 75 s left",
        "Explaining: 6 of 6 rows, 0.04 a second, 0 s left",
    ]
    with progress.progress("Predicting", 1, shown=False) as bar:
        clock[0] += 99
        bar.update()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("done", "todo", "words"), [(2, 6, "; about 3 min left"), (2, 0, ""), (0, 6, "")])
def test_time_left_at_the_pace_of_what_is_done(done: int, todo: int, words: str) -> None:
    assert progress.then_left(60.0, done, todo) == words
