from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.cli import main as cli
from mmfusion.cli.parsing import parse
from mmfusion.data import DatasetConfig, Processor, check_images, fit_wordpiece, read_cases
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.run import predict_path
from mmfusion.inference.split import read_split
from mmfusion.models import create_model

LABELS = ["benign", "malignant", "unsure"]
TEMPLATE = "{age}-year-old {sex}."


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A table of nine cases, one with a damaged image and one with a missing one."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,age,sex,text,split"]
    for i in range(9):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"case{i}.jpg")
        lines.append(f"case{i}.jpg,{LABELS[i % 3]},{30 + i},female,grows for {i} weeks,{'train' if i < 3 else 'test'}")
    data = (root / "images" / "case4.jpg").read_bytes()
    (root / "images" / "case4.jpg").write_bytes(data[: len(data) // 2])
    (root / "images" / "case7.jpg").unlink()
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with an untrained model."""
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    tokenizer = fit_wordpiece(["a 30-year-old female. grows for 3 weeks"], 128)
    processor = Processor(LABELS, image_size=32, tokenizer=tokenizer, text_template=TEMPLATE, max_length=32)
    model = create_model("test_mibf", num_classes=3, head="moe", text_args={"vocab_size": len(tokenizer)})
    dataset = {"text_template": TEMPLATE, "on_bad_row": "fail"}
    Predictor(model, processor, provenance={"dataset": dataset, "seed": 0}).save_pretrained(run / "best")
    return run


@pytest.fixture
def predictor(run) -> Predictor:
    return Predictor.from_pretrained(f"local-dir:{run}")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_of_every_kind(predictor, root):
    path = root / "images" / "case0.jpg"
    rows = [
        {"id": "a", "image": path, "text": "grows", "age": 30, "sex": "female", "label": "not a class"},
        {"image": Image.open(path)},
        {"image": np.asarray(Image.open(path))},
        {"text": "grows for 3 weeks"},
        {"id": "b", "image": root / "images" / "case4.jpg", "text": "grows"},
        {"id": "c", "note": "nothing to read"},
        {"image": np.zeros((2, 2, 7), dtype=np.float32)},
    ]
    results = predictor.predict(rows, batch_size=3)
    assert [list(r) for r in results[:2]] == [
        ["id", "label", "probability", "probabilities", "inputs"],
        ["label", "probability", "probabilities", "inputs"],
    ]
    assert [result.get("inputs") for result in results[:5]] == ["image+text", "image", "image", "text", None]
    for result in results[:4]:
        assert list(result["probabilities"]) == LABELS
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert (
            result["probability"] == max(result["probabilities"].values()) == result["probabilities"][result["label"]]
        )
    assert results[1] == results[2]
    assert results[4]["id"] == "b" and "case4.jpg" in results[4]["error"]
    assert results[5] == {"id": "c", "error": "The row has no image and no text for the model."}
    assert "image array" in results[6]["error"]
    assert predictor.predict([]) == []
    with pytest.raises(TypeError, match="needs a list of rows"):
        predictor.predict(rows[0])
    with pytest.raises(TypeError, match="not str"):
        predictor.predict(["a.jpg"])


def test_probabilities_are_those_of_the_model(predictor, root):
    image, text = root / "images" / "case1.jpg", "grows for 3 weeks"
    (result,) = predictor.predict([{"image": str(image), "text": text}])
    with torch.inference_mode():
        batch = predictor.processor([image], [text])
        expected = predictor.model(**batch).logits.softmax(-1)[0]
    torch.testing.assert_close(torch.tensor(list(result["probabilities"].values())), expected, rtol=1e-6, atol=1e-6)
    (averaged,) = predictor.predict([{"image": str(image), "text": text}], tta=True)
    assert averaged["probabilities"] != result["probabilities"]


def test_table_keeps_every_row_in_order(predictor, root, tmp_path):
    done = predict_path(predictor, root, tmp_path / "out" / "p.csv", batch_size=2)
    rows = read(tmp_path / "out" / "p.csv")
    assert (done.rows, done.unreadable) == (9, 2)
    assert list(rows[0]) == ["id", "label", "probability", "p_benign", "p_malignant", "p_unsure", "inputs", "error"]
    assert [row["id"] for row in rows] == [f"case{i}.jpg" for i in range(9)]
    assert [bool(row["error"]) for row in rows] == [i in (4, 7) for i in range(9)]
    assert done.summary().endswith(f"2 could not be read (see the column error); the first: {rows[4]['error']}")
    assert all(bool(row["label"]) != bool(row["error"]) for row in rows)
    whole = {"image": root / "images" / "case2.jpg", "text": "grows for 2 weeks", "age": 32, "sex": "female"}
    (alone,) = predictor.predict([whole])
    assert float(rows[2]["probability"]) == pytest.approx(alone["probability"], abs=1e-5)
    assert rows[2]["label"] == alone["label"]


def test_duplicate_ids_are_predicted_all_the_same(predictor, root, tmp_path):
    table = root / "double.csv"
    table.write_text("image,age,sex\nimages/case0.jpg,1,male\nimages/case0.jpg,1,male\n../table.csv,1,male\n")
    done = predict_path(predictor, table, tmp_path / "p.csv")
    assert (done.rows, done.unreadable) == (3, 1)
    table.unlink()
    rows = read(tmp_path / "p.csv")
    assert rows[0] == rows[1] and "root" in rows[2]["error"]


def test_folder_of_images(predictor, root, tmp_path):
    done = predict_path(predictor, root / "images", tmp_path / "p.csv")
    assert (done.rows, done.unreadable) == (8, 1)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predict_path(predictor, tmp_path / "nowhere", tmp_path / "q.csv")


def test_labels_and_classes_must_agree(run, tmp_path):
    best = tmp_path / "best"
    best.mkdir()
    for file in (run / "best").iterdir():
        (best / file.name).write_bytes(file.read_bytes())
    config = json.loads((best / "config.json").read_text())
    config["processor"]["labels"] = ["one", "two"]
    (best / "config.json").write_text(json.dumps(config))
    (best / "files.json").unlink()
    with pytest.raises(ValueError, match=r"processor\.labels .* and label_names .* contradict each other"):
        Predictor.from_pretrained(f"local-dir:{tmp_path}")
    config["label_names"] = ["one", "two"]
    (best / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="3 classes, the processor 2 labels"):
        Predictor.from_pretrained(f"local-dir:{tmp_path}")


def test_evaluation_writes_what_it_returns(predictor, root, tmp_path):
    cases = read_split(
        root,
        "test",
        dataset=DatasetConfig(text_template=TEMPLATE, on_bad_row="skip", check_images=False),
        labels=LABELS,
        provenance={},
    )
    with pytest.raises(ValueError, match=r"case4\.jpg cannot be evaluated.*--on-bad-row skip"):
        measure(predictor, cases, output=tmp_path / "none")
    assert not (tmp_path / "none" / "predictions.csv").exists()
    metrics = measure(predictor, cases, output=tmp_path, on_bad_row="skip", batch_size=2).to_dict()
    assert metrics["n"] == 4 and metrics["unreadable"] == 1  # of six, case7 has no image file and case4 a truncated one
    rows = [row for row in read(tmp_path / "predictions.csv") if not row["error"]]
    labels = [LABELS.index(row["true_label"]) for row in rows]
    probabilities = [[float(row[f"p_{name}"]) for name in LABELS] for row in rows]
    again = classification_metrics(labels, probabilities, LABELS)
    assert metrics["confusion_matrix"] == again["confusion_matrix"]
    assert metrics["nll"] == pytest.approx(again["nll"], abs=1e-5)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (tmp_path / "roc.png").is_file() and (tmp_path / "confusion_matrix.png").is_file()


def test_a_drawn_split_is_drawn_again_for_the_same_rows_only(root):
    table = root / "unsplit.csv"
    table.write_text("".join(f"{line.rsplit(',', 1)[0]}\n" for line in (root / "table.csv").read_text().splitlines()))
    config = DatasetConfig(on_bad_row="skip", val_fraction=0.3, test_fraction=0.3)
    given = {"dataset": config, "labels": LABELS}
    trained = check_images(read_cases(table, config)).resolve("skip").split_or_draw(config, seed=3)
    provenance = {"seed": 3, "data_fingerprint": trained.fingerprint()}
    again = read_split(table, "test", provenance=provenance, **given)
    assert list(again.frame["id"]) == list(trained.select("test").frame["id"])
    for other in ({}, {**provenance, "seed": 4}):
        with pytest.raises(ValueError, match="has no split column"):
            read_split(table, "test", provenance=other, **given)
    assert len(read_split(table, "all", provenance={}, **given)) == 7  # of nine, two without a whole image
    table.unlink()


def test_commands(capsys, run, root, tmp_path):
    model = ("--model", f"local-dir:{run}")
    assert cli.main(["evaluate", *model, "--data", str(root)]) == 2
    told = capsys.readouterr()
    assert "evaluating" not in told.out and told.err.count("\n") == 3  # all bad rows, before anything is predicted
    assert "row 5 (case4.jpg)" in told.err and "truncated" in told.err and "row 8 (case7.jpg)" in told.err
    assert cli.main(["evaluate", *model, "--data", str(root), "--on-bad-row", "skip", "--batch_size", "4"]) == 0
    printed = capsys.readouterr().out
    use = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["expert_use"]["mean"]
    assert (
        "balanced_accuracy" in printed
        and f"  experts            {' '.join(f'{share:.2f}' for share in use)}\n" in printed
    )
    output = str(tmp_path / "p.csv")
    assert cli.main(["predict", *model, "--data", str(root), "--output", output, "--tta"]) == 0
    assert "9 rows" in capsys.readouterr().out and len(read(tmp_path / "p.csv")) == 9
    assert cli.main(["predict", *model, "--data", str(tmp_path / "nowhere"), "--output", output]) == 2
    assert cli.main(["predict", "--model", str(run / "gone"), "--data", str(root)]) == 2
    capsys.readouterr()
    assert cli.main(["info", model[1]]) == 0
    text = capsys.readouterr().out
    assert "image_tower" in text and "benign, malignant, unsure" in text and TEMPLATE in text


@pytest.mark.parametrize(("command", "written"), [("predict", ""), ("embed", "bags.csv"), ("explain", None)])
def test_a_command_whose_every_row_is_bad_fails(capsys, run, root, tmp_path, command, written):
    table, output = tmp_path / "bad.csv", tmp_path / "out"
    table.write_text("image\ngone0.jpg\ngone1.jpg\n")
    argv = [command, "--model", f"local-dir:{run}", "--data", str(table), "--output", str(output)]
    assert cli.main(argv) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "None of the 2 rows gave a result; the first: " in told and "not exist" in told
    if written is not None:
        assert [row["id"] for row in read(output / written)] == ["gone0.jpg", "gone1.jpg"]
        assert all(row["error"] for row in read(output / written))


def test_saved_dataset_settings_are_defaults_that_arguments_beat(run, root):
    argv = ["--model", f"local-dir:{run}", "--data", str(root), "--dataset.label_column", "dx"]
    options = parse("evaluate", argv)
    assert options.dataset == DatasetConfig(label_column="dx")  # the template is the processor's


def test_list_and_info(capsys):
    assert cli.main(["list", "test_m*"]) == 0
    assert capsys.readouterr().out == "test_mibf\n"
    assert cli.main(["list", "--kind", "fusion"]) == 0
    assert "gated" in capsys.readouterr().out.split()
    assert cli.main(["list", "test_mibff"]) == 2
    assert "did you mean 'test_mibf'" in capsys.readouterr().err
    assert cli.main(["info", "test_mibf"]) == 0
    out = capsys.readouterr().out
    total = sum(p.numel() for p in create_model("test_mibf").parameters())
    assert f"{total:,}" in out
    assert cli.main(["info", "gated"]) == 0
    assert capsys.readouterr().out.startswith("gated")
    assert cli.main(["info", "gatedd"]) == 2


def test_cases_read_for_prediction_keep_unknown_labels_out(root):
    cases = read_cases(root, processor_labels=["benign"], require_labels=False)
    assert set(cases.frame["label"].dropna()) == {"benign"}
