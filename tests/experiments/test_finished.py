"""Finished runs compared on the same rows: ``compare --runs``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmfusion
from mmfusion.cli.main import main
from mmfusion.evaluation import bootstrap_counts
from mmfusion.inference.predictions_csv import MEASURED, prediction_writer
from mmfusion.inference.stream import Prediction

NAMES, ROWS = ["a", "b"], 60


def write(folder: Path, skill: float, *, order: int = 1, flipped: int = 0, ids: int = ROWS) -> np.ndarray:
    """Write predictions of a made-up run, three rows for each of 20 patients; returns the row-wise accuracy."""
    rng = np.random.default_rng(int(10 * skill))
    labels = np.arange(ROWS) // 2 % 2
    logits = rng.normal(size=(ROWS, 2)) + skill * np.eye(2)[labels]
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    told = np.where(np.arange(ROWS) < flipped, 1 - labels, labels)
    place = np.arange(ids)[::order]
    with prediction_writer(folder / "predictions.csv", NAMES, known=MEASURED) as rows:
        truth, groups = ([NAMES[told[i]] for i in place], [f"patient {i // 3}" for i in place])
        rows(
            [f"r{i}" for i in place],
            Prediction(0, logits[place], [None] * len(place), ["image"] * len(place)),
            {"true_label": truth, "group": groups},
        )
    return (logits.argmax(axis=1) == labels).astype(float)


def test_differences_are_paired_by_row_and_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = {name: write(tmp_path / name, skill, order=order) for name, skill, order in (("a", 0.3, 1), ("b", 3, -1))}
    runs = [str(tmp_path / name) for name in "ab"]
    found = mmfusion.compare(runs=runs, output=tmp_path / "out", replicates=400)
    base, other = found.results
    assert (base.cases, base.groups) == (ROWS, 20)
    figure = other.figures["accuracy"]
    assert figure.difference == pytest.approx(right["b"].mean() - right["a"].mean())
    counts = bootstrap_counts(np.arange(ROWS) // 3, 400)
    ends = np.quantile(counts @ (right["b"] - right["a"]) / counts.sum(axis=1), [0.025, 0.975])
    assert (figure.difference_low, figure.difference_high) == pytest.approx(tuple(ends))
    assert figure.verdict == "better" and figure.spread is None

    assert main(["compare", "--runs", *runs, "--output", str(tmp_path / "again"), "--replicates", "400"]) == 0
    printed = capsys.readouterr().out
    assert "The same 60 rows" in printed and "resamples of whole groups (20)" in printed
    shown = f"{figure.difference:+.3f} | {ends[0]:+.3f} to {ends[1]:+.3f} | better"
    assert f"| accuracy | {right['a'].mean():.3f} | {right['b'].mean():.3f} | {shown}" in printed
    for folder in ("out", "again"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {"results.md", "results.csv", "differences.png"}
    table = pd.read_csv(tmp_path / "again" / "results.csv").set_index(["row", "metric"])
    assert table.loc[(runs[1], "accuracy"), "difference"] == pytest.approx(figure.difference)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: write(folder, 1, ids=58), "was evaluated on other rows than .*: 2 are in only one of them"),
        (lambda folder: write(folder, 1, flipped=2), "have different labels for 2 rows, such as 'r0': b, and a"),
        (lambda folder: folder.mkdir(), "has no predictions.csv; use folders of mmfusion train"),
        (lambda folder: None, "does not exist, nor its predictions.csv"),
        (lambda folder: (write(folder, 1), edit(folder, "p_b", "p_c", "\nx,b", "\nx,c"))[0], "has the classes a, c"),
        (lambda folder: (write(folder, 1), edit(folder, "patient 0", "patient 1"))[0], "has other groups than"),
        (lambda folder: (write(folder, 1), edit(folder, "true_label", "x"))[0], "has no true labels"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a", 1)
    spoil(tmp_path / "b")
    assert main(["compare", "--runs", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert error.count("\n") == 1


def edit(folder: Path, *pairs: str) -> None:
    path = folder / "predictions.csv"
    text = path.read_text()
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        text = text.replace(old, new)
    path.write_text(text.replace(",b,patient", ",c,patient") if "p_c" in text else text)


def test_options_that_only_training_reads_are_refused(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, 1) is not None and str(tmp_path / name) for name in "ab"]
    with pytest.raises(ValueError, match="by their predictions only, without seeds, data; for other data, evaluate"):
        mmfusion.compare("data", runs=runs, seeds=[1])
    with pytest.raises(ValueError, match="At least two different runs"):
        mmfusion.compare(runs=[runs[0], runs[0]])
    with pytest.raises(ValueError, match=r"Missing run\.data: set"):
        mmfusion.compare(vary={"model.fusion": ["add"]})


def test_net_benefit_of_two_runs_is_compared_on_the_same_draws(tmp_path: Path) -> None:
    for name, skill in (("a", 0.3), ("b", 3)):
        write(tmp_path / name, skill)
    runs = [str(tmp_path / name) for name in "ab"]
    found = mmfusion.compare(runs=runs, output=tmp_path / "out", replicates=100, alarm=["b"], benefit_thresholds=[0.2])
    one, two = (pd.read_csv(tmp_path / name / "predictions.csv") for name in "ab")

    def benefit(table: pd.DataFrame) -> float:
        acted, right = table["p_b"] >= 0.2, table["true_label"] == "b"
        return float((acted & right).mean() - (acted & ~right).mean() * 0.25)

    figure = found.results[1].figures["net benefit from 0.2"]
    assert figure.difference == pytest.approx(benefit(two) - benefit(one), abs=1e-6)
    assert figure.difference_low < figure.difference < figure.difference_high and figure.verdict == "better"
    assert "net benefit from 0.2" in found.text
