from __future__ import annotations

import csv

import pytest

from mmfusion.cli import main as cli
from mmfusion.experiments import demo
from mmfusion.markdown import aligned_table


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_an_earlier_demo_is_replaced(tmp_path):
    first = demo._fresh(tmp_path / "demo")
    (first / "old").touch()
    assert not (demo._fresh(tmp_path / "demo") / "old").exists()


def test_table_has_one_width():
    lines = aligned_table(["a", "long name"], [["1234", "x"]]).splitlines()
    assert lines == ["| a    | long name |", "|------|-----------|", "| 1234 | x         |"]


@pytest.mark.slow
def test_fusion_beats_both_modalities(tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr(demo, "ROWS", 360)
    assert cli.main(["demo", "--output", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    accuracy = {
        cells[1].strip(): float(cells[3])
        for line in text.splitlines()
        if (cells := line.split("|"))[1:2] and cells[1].strip() in demo.MODELS
    }
    assert accuracy["fusion"] > max(accuracy["image"], accuracy["text"]) + 0.1
    assert str(tmp_path / "demo" / "report.md") in text
    assert not [record for record in caplog.records if "model ignores" in record.getMessage()]
    for kind in demo.MODELS:
        assert (tmp_path / "demo" / kind / "roc.png").is_file()
        with (tmp_path / "demo" / kind / "predictions.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 50
