"""Runs on a table in memory: the same results as from a file, resumable, and no rows in the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mmfusion.data import DatasetConfig
from mmfusion.evaluation import EvaluateConfig, evaluate
from mmfusion.files import read_json
from mmfusion.training import RunConfig, train


def test_a_run_on_a_table(toy: Path, tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    frame = pd.read_csv(toy / "cases.csv")
    dataset = DatasetConfig(image_root=str(toy))
    of_file = train(make_config("file", "plain", epochs=1))
    config = replace(make_config("frame", "plain", epochs=1), data=frame, dataset=dataset)  # type: ignore[arg-type]
    done = train(config)
    assert done.test == of_file.test and done.val == of_file.val
    written = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert written["data"] == "table in memory, 37 rows"
    fingerprints = [read_json(run.folder / "provenance.json")["data_fingerprint"] for run in (done, of_file)]
    assert fingerprints[0] == fingerprints[1]

    again = replace(config, data=frame.copy(), train=replace(config.train, resume=True))  # type: ignore[arg-type]
    assert train(again).test == done.test
    other = frame.assign(label=["c", *frame["label"][1:]])
    with pytest.raises(ValueError, match="the data changed since it started"):
        train(replace(again, data=other))  # type: ignore[arg-type]

    options = {"model": [f"local-dir:{done.folder}"], "output": str(tmp_path / "evaluated"), "dataset": dataset}
    found = evaluate(EvaluateConfig(data=frame, **options))  # type: ignore[arg-type]
    assert done.test is not None and found.figures["balanced_accuracy"] == done.test["balanced_accuracy"]
