from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.cli import main as cli
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.data.formats import file_name
from mmfusion.explanation import image_relevance, save_explanation
from mmfusion.images.opening import open_image
from mmfusion.inference.predictor import Predictor
from mmfusion.models import create_model

LABELS = ["benign", "malignant", "unsure"]
TEMPLATE = "{age}-year-old {sex}."


def predictor_of(name: str, **overrides) -> Predictor:
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["a 30-year-old female. grows for 3 weeks"], 128)
    processor = Processor(
        LABELS, image_size=64, crop_pct=0.8, tokenizer=tokenizer, text_template=TEMPLATE, max_length=32
    )
    model = create_model(name, num_classes=3, text_args={"vocab_size": len(tokenizer)}, **overrides)
    return Predictor(model, processor)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"case{i}.png")
    (root / "images" / "case2.png").write_bytes(b"no picture")
    rows = "".join(f"case{i}.png,benign,{30 + i},female\n" for i in range(3))
    (root / "table.csv").write_text(f"image,label,age,sex\n{rows}")
    return root


def row_of(root: Path) -> dict:
    return {"image": root / "images" / "case0.png", "age": 30, "sex": "female", "text": "grows", "label": "unread"}


def test_explanation_of_a_row(root: Path) -> None:
    predictor = predictor_of("test_attention")
    row = row_of(root)
    found = predictor.explain(row)
    (predicted,) = predictor.predict([row])
    assert found.label == found["label"] == found.explained == predicted["label"]
    assert found.probabilities == pytest.approx(predicted["probabilities"])
    assert [word for word, _ in found.words] == ["30", "-", "year", "-", "old", "female", ".", "grows"]
    assert found.contributions.values["image+text"] == pytest.approx(found.probability, abs=1e-6)

    inputs = predictor.processor([row["image"]], [predictor.processor.text_of(row)])
    (relevance,) = image_relevance(predictor.model, inputs, LABELS.index(found.label))
    np.testing.assert_array_equal(found.relevance["image"], relevance.numpy())
    assert found.heat_map.shape == (64, 64) and found.heat_map.min() >= 0
    assert found.heat_map.max() == pytest.approx(1) or (relevance <= 0).all()
    assert found.pictures["image"].shape == (40, 60, 3)
    np.testing.assert_array_equal(found.pictures["image"], np.asarray(open_image(row["image"])))
    assert found.boxes["image"] == pytest.approx((14, 4, 46, 36))
    with torch.no_grad():
        weights = predictor.model(**inputs).attentions["text_to_image.0"]
    np.testing.assert_allclose(found.attention["text_to_image.0"].ravel(), weights[0].mean((0, 1)), rtol=1e-5)
    assert found.attention["text_to_image.0"].sum() == pytest.approx(1, abs=1e-5)


def test_another_class(root: Path) -> None:
    predictor = predictor_of("test_concat")
    found = predictor.explain(row_of(root), label="unsure")
    assert found.explained == "unsure"
    assert found.contributions.values["image+text"] == pytest.approx(found.probabilities["unsure"], abs=1e-6)
    with pytest.raises(ValueError, match="Unknown label 'harmless'"):
        predictor.explain(row_of(root), label="harmless")
    with pytest.raises(TypeError, match="not list"):
        predictor.explain([row_of(root)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no image and no text"):
        predictor.explain({})


def test_gates_are_the_models(root: Path) -> None:
    predictor = predictor_of("test_concat", fusion="gated")
    row = row_of(root)
    found = predictor.explain(row)
    inputs = predictor.processor([row["image"]], [predictor.processor.text_of(row)])
    with torch.no_grad():
        gates = predictor.model(**inputs).gates
    assert list(found.gates) == list(gates)
    for name, gate in gates.items():
        np.testing.assert_allclose(found.gates[name], gate[0], rtol=1e-6)


def test_rows_that_lack_a_modality(root: Path) -> None:
    predictor = predictor_of("test_concat")
    row = row_of(root)
    image_only = predictor.explain({"image": row["image"]})
    assert image_only.words is None and list(image_only.contributions.shapley) == ["image"]
    text_only = predictor.explain({"text": "grows"})
    assert text_only.heat_map is None and "heat_map" not in text_only and text_only.words[0][0] == "grows"


@pytest.mark.parametrize("row", ["both", "image", "text"])
def test_files(root: Path, tmp_path: Path, row: str) -> None:
    predictor = predictor_of("test_attention")
    whole = row_of(root)
    given = {"both": whole, "image": {"image": whole["image"]}, "text": {"text": "grows " * 40}}[row]
    picture, numbers = save_explanation(predictor.explain(given), tmp_path / "out" / "a.b")
    assert (picture.name, numbers.name) == ("a.b.png", "a.b.json")
    with Image.open(picture) as image:
        image.load()
        assert image.width > 300
    plain = json.loads(numbers.read_text())
    assert plain["label"] in LABELS and "pictures" not in plain
    assert ("relevance" in plain) == (row != "text") and ("words" in plain) == (row != "image")
    assert plain["contributions"]["shapley"]


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_other_methods(root: Path, method: str) -> None:
    found = predictor_of("test_concat").explain(row_of(root), method=method, text_method="gradient_x_input")
    assert found.heat_map.shape == found.relevance["image"].shape == (64, 64)


def test_file_names() -> None:
    taken: set[str] = set()
    names = [file_name(id_, taken) for id_ in ("a/b.jpg", "a-b.png", "../x", "1.2", "é ü", "..")]
    assert names == ["a-b", "a-b-2", "x", "1.2", "é-ü", "row"]


def test_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = predictor_of("test_mibf")
    run = tmp_path / "run" / "best"
    predictor.provenance = {"dataset": {"text_template": TEMPLATE}, "seed": 0}
    predictor.save_pretrained(run)
    argv = [
        "explain",
        "--model",
        f"local-dir:{tmp_path / 'run'}",
        "--data",
        str(root),
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "2 rows explained" in out and "1 could not be read" in out and "case2.png: " in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "case0.json",
        "case0.png",
        "case1.json",
        "case1.png",
    ]
    first = (tmp_path / "out" / "case1.json").read_bytes()
    options = ["--rows", "case1.png", "--label", "unsure", "--text_method", "gradient_x_input"]
    assert cli.main([*argv, *options]) == 0
    assert "1 rows explained" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "case1.json").read_text())["explained"] == "unsure"
    assert cli.main([*argv, "--limit", "2"]) == 0
    assert (tmp_path / "out" / "case1.json").read_bytes() == first
    capsys.readouterr()
    assert cli.main([*argv[:-1], str(tmp_path / "limited"), "--limit", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "limited").iterdir()) == ["case0.json", "case0.png"]
    capsys.readouterr()
    image = str(root / "images" / "case0.png")
    assert cli.main([*argv[:4], image, "--output", str(tmp_path / "single"), "--rows", "case0.png"]) == 0
    capsys.readouterr()
    for options, message in (
        (["--rows", "case7.png"], "no row 'case7.png'; did you mean"),
        (["--label", "x"], "Unknown label 'x'"),
        (["--method", "cam"], "Unknown method 'cam'"),
    ):
        assert cli.main([*argv, *options]) == 2
        assert re.search(message, capsys.readouterr().err)
