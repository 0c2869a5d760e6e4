"""Damaged and manipulated model folders are refused in one line or load as the saved model.

``pytest tests/artifacts/test_mutants.py --mutants 5000`` tries more of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mutants import Files, check_mutants
from PIL import Image

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.data.table_columns import TableColumns

TEXTS = ["a red spot, 55 years", "two pale spots", ""]
ROWS: list[dict[str, Any]] = [
    {"image": Image.new("RGB", (20, 20), (90, 40, 30)), "text": TEXTS[0], "age": 55, "site": "arm"},
    {"text": TEXTS[1], "site": "moon"},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a model of image, text and columns, by name."""
    torch.manual_seed(0)
    table = TableColumns.fit(
        {"age": [20, 30, 40, 50] * 5, "site": ["arm", "leg"] * 10}, numeric=["age"], categorical=["site"]
    )
    tokenizer = fit_wordpiece(TEXTS * 3)
    processor = Processor(["no", "yes"], image_size=16, tokenizer=tokenizer, max_length=16, table=table)
    model = mmfusion.create_model("test_mibf", processor=processor, table_encoder="table_mlp")
    folder = mmfusion.save_pretrained(model, tmp_path_factory.mktemp("saved") / "m", processor)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("attacked", [False, True], ids=["damaged", "attacked"])
def test_mutants(saved: Files, tmp_path: Path, pytestconfig: pytest.Config, attacked: bool) -> None:
    count = pytestconfig.getoption("mutants") or (60 if attacked else 120)
    check_mutants(saved, tmp_path, ROWS, count, attacked)
