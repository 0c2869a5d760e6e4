"""Damaged and attacked folders of a saved model: refused in one line, or the model that was saved; nothing else.

``pytest tests/artifacts/test_mutants.py --mutants 5000`` tries more of them.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np
import pytest
import torch
from mutants import Files, mutant, write
from PIL import Image

import mmfusion
from mmfusion.artifacts.integrity import write_files
from mmfusion.artifacts.names import FILES
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.data.table_columns import TableColumns

TEXTS = ["a red spot, 55 years", "two pale spots", ""]
ROWS: list[dict[str, Any]] = [
    {"image": Image.new("RGB", (20, 20), (90, 40, 30)), "text": TEXTS[0], "age": 55, "site": "arm"},
    {"text": TEXTS[1], "site": "moon"},
]
#: seconds of the processor's time that a folder may take.
PATIENCE = 10.0


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


def answers(folder: Path) -> dict[str, Any]:
    """What a model makes of rows and texts."""
    predictor = mmfusion.Predictor.from_pretrained(folder, device="cpu")
    tokenizer = predictor.processor.tokenizer
    tokens = tokenizer(TEXTS)["input_ids"] if tokenizer is not None else []
    return {"labels": predictor.labels, "tokens": tokens, "p": predictor.predict_proba(ROWS)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("labels", "tokens")) and np.array_equal(one["p"], other["p"])


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("attacked", [False, True], ids=["damaged", "attacked"])
def test_mutants(saved: Files, tmp_path: Path, pytestconfig: pytest.Config, attacked: bool) -> None:
    """Attacked folders have a ``files.json`` that says nothing against them; they may hold another sound model."""
    count = pytestconfig.getoption("mutants") or (60 if attacked else 120)
    files = {name: data for name, data in saved.items() if not (attacked and name == FILES)}
    write(saved, tmp_path)
    expected, outcomes, faults = answers(tmp_path), Counter[str](), []
    for seed in range(count):
        write(mutant(files, seed + 10**6 * attacked), tmp_path)
        if attacked and seed % 2:
            write_files(tmp_path)
        began = time.process_time()
        try:
            with warnings.catch_warnings(action="ignore"):
                found = "same" if same(answers(tmp_path), expected) else "another"
        except (ValueError, OSError) as error:
            found = "refused"
            if "\n" in str(error) or not 0 < len(str(error)) < 1500:
                faults.append(f"{seed}: not one short line: {str(error)[:300]}")
        except Exception as error:  # what a user would see as a traceback
            found = "traceback"
            where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
            faults.append(f"{seed}: {type(error).__name__}: {str(error)[:200]} ({', '.join(where[-4:])})")
        if found == "another" and not attacked:
            faults.append(f"{seed}: another model was loaded")
        if (took := time.process_time() - began) > PATIENCE:
            faults.append(f"{seed}: {found} after {took:.0f} s")
        outcomes[found] += 1
    print(f"{'attacked' if attacked else 'damaged'}: {dict(outcomes)}")
    assert not faults, f"{len(faults)} of {count} ({dict(outcomes)}):\n" + "\n".join(faults[:40])
    assert outcomes["refused"] > count / 4
