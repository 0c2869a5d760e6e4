"""A whole evaluation of a small model, and its page in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.cli import main as cli
from mmfusion.data import DatasetConfig, Processor, fit_wordpiece
from mmfusion.evaluation import Evaluation, Interval
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import HEADLINE
from mmfusion.evaluation.report import write_report
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split
from mmfusion.models import create_model

LABELS = ["benign", "malignant", "unsure"]
TEMPLATE = "{age}-year-old {sex}."


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """60 validation and 60 test rows, two per patient, with names that contain HTML."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,age,sex,text,patient,split"]
    for i in range(123):
        split = "train" if i < 3 else "val" if i < 63 else "test"
        image = "" if i % 20 == 19 else f"case{i}.png"
        if image:
            Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(root / "images" / image)
        text = "" if i % 30 == 10 else f"grows for {i} weeks <b>&"
        lines.append(
            f"{image},{LABELS[rng.integers(3)]},{20 + i % 50},{'male' if i % 3 else 'female'},{text},p{i // 2},{split}"
        )
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with an untrained, calibrated model."""
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    tokenizer = fit_wordpiece(["a 30-year-old female. grows for 3 weeks"], 128)
    processor = Processor(LABELS, image_size=32, tokenizer=tokenizer, text_template=TEMPLATE, max_length=32)
    model = create_model("test_mibf", num_classes=3, text_args={"vocab_size": len(tokenizer)})
    calibration = {"temperature": 1.5, "fitted_on": "val", "n": 60}
    dataset = {"text_template": TEMPLATE, "group_column": "patient"}
    Predictor(model, processor, calibration, {"dataset": dataset, "seed": 0}).save_pretrained(run / "best")
    return run


@pytest.fixture(scope="module")
def page(root, run, tmp_path_factory) -> Path:
    """The folder of ``mmfusion evaluate --report``."""
    output = tmp_path_factory.mktemp("evaluation")
    argv = ["evaluate", "--model", f"local-dir:{run}", "--data", str(root), "--output", str(output)]
    argv += ["--dataset.group_column", "patient"]  # no model contains its author's patients
    assert cli.main([*argv, "--subgroups", "sex", "age:10", "--report"]) == 0
    return output


@pytest.fixture(scope="module")
def metrics(page) -> dict:
    return json.loads((page / "metrics.json").read_text())


def cases_of(root, split="test"):
    dataset = DatasetConfig(text_template=TEMPLATE, group_column="patient")
    return read_split(root, split, dataset=dataset, labels=LABELS, provenance={})


def test_everything_is_in_the_folder(page, metrics):
    plots = {"confusion_matrix.png", "roc.png", "reliability.png", "risk_coverage.png"}
    assert plots | {"metrics.json", "predictions.csv", "subgroups.csv", "report.html"} == {
        f.name for f in page.iterdir()
    }
    assert metrics["n"] == 60 and [part["n"] for part in metrics["subgroups"]["sex"]] == [40, 20]
    assert set(metrics["conformal"]) == {"wanted", "fitted_on", "lac", "lac by class", "aps", "aps by class"}
    assert metrics["thresholds"]["fitted_on"] == 60 and set(metrics["thresholds"]["per_class"]) == set(LABELS)
    errors = [error["probability"] for error in metrics["worst_errors"]]
    assert len(errors) == 12 and errors == sorted(errors, reverse=True)


def test_intervals_are_over_the_groups_of_the_table(root, run, metrics):
    # in the memory format of the command, because kernels of other formats round differently
    predictor = Predictor.from_pretrained(f"local-dir:{run}", channels_last=resolve_channels_last(None))
    cases = cases_of(root)
    found = measure(predictor, cases)
    assert found.bootstrap.groups == cases.frame["group"].nunique() == 31
    labels = [LABELS.index(label) for label in cases.frame["label"]]
    with torch.inference_mode():
        batches = [predictor.predict([row | {"image": image(cases, row)}])[0] for row in cases.frame.to_dict("records")]
    probabilities = np.array([list(result["probabilities"].values()) for result in batches])
    expected = metric_intervals(labels, probabilities, cases.frame["group"].astype(str).tolist())
    for name in HEADLINE:
        assert vars(found.intervals[name]) == pytest.approx(vars(expected[name]), abs=1e-4)
        assert metrics["intervals"][name] == pytest.approx(vars(found.intervals[name]))


def image(cases, row):
    return None if row["image"] is None else cases.image_root / row["image"]


def test_calibration_can_be_left_out(root, run, metrics, tmp_path, capsys):
    argv = ["evaluate", "--model", f"local-dir:{run}", "--data", str(root), "--output", str(tmp_path)]
    assert cli.main([*argv, "--calibrated", "false"]) == 0
    assert "temperature" not in capsys.readouterr().out
    plain = json.loads((tmp_path / "metrics.json").read_text())
    assert plain["calibration"] is None
    for name in ("ece", "nll", "brier"):
        assert metrics["calibration"]["before"][name] == pytest.approx(plain[name], abs=1e-5)
        assert metrics["calibration"]["after"][name] == pytest.approx(metrics[name], abs=1e-9)
    assert plain["nll"] != metrics["nll"] and plain["accuracy"] == metrics["accuracy"]


def test_missing_modalities_are_measured_on_the_same_rows(root, run, metrics):
    # in the memory format of the command, because kernels of other formats round differently
    predictor = Predictor.from_pretrained(f"local-dir:{run}", channels_last=resolve_channels_last(None))
    cases = cases_of(root)
    whole = [row for row in cases.frame.to_dict("records") if row["image"]]
    assert [(row["shown"], row["n"]) for row in metrics["missing_modality"]] == [
        ("image and text", len(whole)),
        ("image only", len(whole)),
        ("text only", len(whole)),
        ("text of another row", len(whole)),
    ]
    labels = [LABELS.index(row["label"]) for row in whole]
    shown = {
        "image only": [{"image": image(cases, row)} for row in whole],
        "text only": [{key: row[key] for key in ("text", "age", "sex")} for row in whole],
        "text of another row": [
            {"image": image(cases, row)} | {key: whole[other][key] for key in ("text", "age", "sex")}
            for row, other in zip(whole, np.random.default_rng(0).permutation(len(whole)), strict=True)
        ],
    }
    everything = [
        result["label"]
        for result in predictor.predict(
            [{"image": image(cases, row)} | {key: row[key] for key in ("text", "age", "sex")} for row in whole]
        )
    ]
    assert metrics["missing_modality"][0]["changed"] == 0
    for figures in metrics["missing_modality"][1:]:
        results = predictor.predict(shown[figures["shown"]])
        true = [result["probabilities"][LABELS[label]] for result, label in zip(results, labels, strict=True)]
        assert figures["nll"]["value"] == pytest.approx(-np.log(true).mean(), abs=1e-5)
        named = [result["label"] for result in results]
        assert figures["changed"] == pytest.approx(np.mean([a != b for a, b in zip(named, everything, strict=True)]))


def test_validation_rows_are_others_than_those_measured(root, run, capsys):
    argv = ["evaluate", "--model", f"local-dir:{run}", "--data", str(root), "--validation", "--split", "all"]
    assert cli.main(argv) == 2
    assert "part of --split all" in capsys.readouterr().err


def test_an_unknown_column_is_named(root, run, capsys):
    argv = ["evaluate", "--model", f"local-dir:{run}", "--data", str(root), "--subgroups", "gender"]
    assert cli.main(argv) == 2
    assert "'gender'" in capsys.readouterr().err


def test_page_is_one_file(page):
    text = (page / "report.html").read_text()
    assert "<script" not in text and not re.search(r"(src|href)=[\"'](?!data:)", text) and "url(" not in text
    assert "grows for" in text and "weeks <b>" not in text  # a row's text is not markup
    pictures = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures]
    assert len(sizes) >= 4 + 12 - 1 and all(min(size) > 1 for size in sizes)


def test_page_of_figures_alone(page, metrics, root, run, tmp_path):
    """The page says what was not requested, without an error."""
    left_out = ("subgroups", "conformal", "thresholds", "missing_modality")
    plain = {name: value for name, value in metrics.items() if name not in left_out} | {"calibration": None}
    plain["worst_errors"] = []
    predictor = Predictor.from_pretrained(f"local-dir:{run}")
    found = Evaluation.from_dict(plain)
    about = {"title": "<i>mine</i>", "command": "mmfusion evaluate"}
    text = write_report(predictor, found, cases_of(root), tmp_path, **about).read_text()
    for sentence in ("Not requested", "no validation rows", "Not requested", "There are none", "&lt;i&gt;mine"):
        assert sentence in text


def test_command_of_the_page_makes_it_again(page, root, run):
    text = (page / "report.html").read_text()
    command = re.search(r"<code>mmfusion evaluate (.*?)</code>", text)[1]
    for option in (f"--model local-dir:{run}", f"--data {root}", "--subgroups sex age:10", "--report true"):
        assert option in command


@pytest.mark.parametrize("width", [1280, 420])
def test_page_in_a_browser(browser, page, metrics, width):
    from selenium.webdriver.common.by import By

    browser.set_window_size(width, 900)
    browser.get((page / "report.html").as_uri())
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.execute_script("return document.images.length") >= 15
    assert browser.get_log("browser") == []
    wide = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    scroll, client = browser.execute_script(wide)
    assert scroll <= client

    def text(selector: str) -> str:
        return " ".join(browser.find_element(By.CSS_SELECTOR, selector).text.split())

    for name in HEADLINE:
        assert text(f"#headline [data-figure={name}]") == Interval(**metrics["intervals"][name]).text()
    assert text("[data-calibration=temperature]") == f"{metrics['calibration']['temperature']:.3f}"
    for when in ("before", "after"):
        assert text(f"[data-calibration={when}-nll]") == f"{metrics['calibration'][when]['nll']:.3f}"
    for label in LABELS:
        ends = metrics["intervals"]["per_class"][label]
        assert text(f"[data-class={label}] [data-figure=auroc]") == Interval(**ends["auroc"]).text()
        found = metrics["thresholds"]["per_class"][label]["sensitivity"]
        assert text(f"[data-threshold={label}] [data-figure=sensitivity]") == Interval(**found).text()
    for part in metrics["subgroups"]["age"]:
        shown = text(f"[data-subgroup='age={part['value']}'] [data-figure=balanced_accuracy]")
        assert shown == Interval(**part["balanced_accuracy"]).text()
    for row in metrics["missing_modality"]:
        shown = text(f"[data-shown='{row['shown']}'] [data-figure=balanced_accuracy]")
        assert shown == Interval(**row["balanced_accuracy"]).text()
    for name in ("lac", "aps by class"):
        assert (
            text(f"[data-rule='{name}'] [data-figure=coverage]")
            == Interval(**metrics["conformal"][name]["coverage"]).text()
        )
    for error in metrics["worst_errors"]:
        assert text(f"[data-error='{error['row']}']") == f"{error['probability']:.3f}"
