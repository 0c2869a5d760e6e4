"""Every subset of image, text and columns, and another row's text or columns, on the same rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.data.cases import CaseTable
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation import missing_modality
from mmfusion.inference.predictor import Predictor

TEMPLATE = "{age}-year-old"
SHOWN = [
    "image, text and columns",
    "image and text",
    "image and columns",
    "text and columns",
    "image only",
    "text only",
    "columns only",
    "text of another row",
    "columns of another row",
]


@pytest.fixture
def cases(tmp_path) -> CaseTable:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        row = {"id": str(i), "image": f"{i}.png", "label": "ab"[i % 2], "text": None, "group": None, "split": "test"}
        rows.append(row | {"age": str(20 + 5 * i), "sex": ["male", "female", None][i % 3]})
    frame = pd.DataFrame(rows, index=pd.RangeIndex(1, 13, name="row"), dtype=object)
    return CaseTable(frame, tmp_path, known_labels=("a", "b"))


@pytest.fixture
def predictor(cases: CaseTable) -> Predictor:
    table = TableColumns.fit(cases.frame, numeric=["age"], categorical=["sex"], min_patients=1)
    tokenizer = fit_wordpiece([f"{age}-year-old" for age in range(100)], 128)
    torch.manual_seed(0)
    model = mmfusion.create_model(
        "test_mibf",
        num_classes=2,
        table_encoder="table_mlp",
        table_args=table.table_args(),
        text_args={"vocab_size": len(tokenizer)},
    )
    model.towers["table"].set_statistics(*table.statistics())
    processor = Processor(["a", "b"], image_size=32, tokenizer=tokenizer, text_template=TEMPLATE, table=table)
    return Predictor(model, processor)


def test_every_set_of_modalities_is_measured(predictor: Predictor, cases: CaseTable) -> None:
    found = {row.shown: row for row in missing_modality(predictor, cases, bootstrap={"replicates": 10})}
    assert list(found) == SHOWN and {row.n for row in found.values()} == {12}
    rows = cases.frame.to_dict("records")
    images = [str(cases.image_root / row["image"]) for row in rows]
    texts = [f"{row['age']}-year-old" for row in rows]
    columns = [{name: row[name] for name in ("age", "sex")} for row in rows]
    order = np.random.default_rng(0).permutation(12)

    def nll(image: bool = True, text: list[str] | None = texts, table: list[dict[str, str]] | None = columns) -> float:
        shown = {"images": images if image else None, "text": text, "table": table}
        batch = predictor.processor(**{name: values for name, values in shown.items() if values is not None})
        if not image:
            batch = {name: value for name, value in batch.items() if name not in ("pixel_values", "image_present")}
        with torch.no_grad():
            log = predictor.network()(**batch).logits.log_softmax(1)
        return -float(np.mean([log[i, "ab".index(row["label"])] for i, row in enumerate(rows)]))

    expected = {
        "image, text and columns": nll(),
        "image and text": nll(table=None),
        "image and columns": nll(text=None),
        "text and columns": nll(image=False),
        "text only": nll(image=False, table=None),
        "columns only": nll(image=False, text=None),
        "text of another row": nll(text=[texts[i] for i in order]),
        "columns of another row": nll(table=[columns[i] for i in order]),
    }
    for shown, value in expected.items():
        assert found[shown].figures["nll"].value == pytest.approx(value, abs=1e-5), shown
