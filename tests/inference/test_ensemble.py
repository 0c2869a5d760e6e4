from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mmfusion
from mmfusion.artifacts.ensemble import write_ensemble
from mmfusion.cli import main as cli
from mmfusion.data import Processor, fit_wordpiece, read_cases
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.files import write_json
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.stream import Prediction, mean_of

LABELS = ["a", "b", "c"]


def save(
    folder: Path, name: str, seed: int, image_size: int, words: list[str], temperature: float | None = None
) -> str:
    torch.manual_seed(seed)
    tokenizer = fit_wordpiece(words, 128)
    model = mmfusion.create_model(name, num_classes=3, text_args={"vocab_size": len(tokenizer)})
    calibration = None if temperature is None else {"temperature": temperature, "fitted_on": "val", "n": 60}
    processor = Processor(LABELS, image_size=image_size, tokenizer=tokenizer, max_length=24)
    provenance = {"dataset": {"text_column": "text"}, "seed": seed}
    Predictor(model, processor, calibration, provenance).save_pretrained(folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three models with different architectures, image sizes, tokenizers and temperatures."""
    root = tmp_path_factory.mktemp("models")
    return [
        save(root / "one", "test_concat", 0, 32, ["a red spot"], 0.3),
        save(root / "two", "test_mibf", 1, 40, ["green or blue, patient of 30 years"], 2.0),
        save(root / "three", "test_attention", 2, 32, ["spot"]),
    ]


def values(results: list[dict]) -> np.ndarray:
    return np.array([list(result["probabilities"].values()) for result in results])


def test_mean_of_streams() -> None:
    nothing = [float("nan")] * 2
    read = np.log(np.array([[0.2, 0.8], nothing], np.float32))
    one = [Prediction(0, read, [None, "no image"], ["image", ""], {"experts": np.ones((2, 2))})]
    two = [Prediction(0, np.log(np.array([[0.6, 0.4], [0.5, 0.5]], np.float32)), [None, None], ["text", "text"])]
    (found,) = mean_of([iter(one), iter(two)])
    np.testing.assert_allclose(found.probabilities, [[0.4, 0.6], nothing], atol=1e-7)
    assert (
        found.errors == [None, "no image"]
        and found.shares == {}
        and found.inputs == ["image+text", ""]
        and found.start == 0
    )
    assert list(mean_of([iter(one)])) == one
    with pytest.raises(ValueError, match="shorter"):
        list(mean_of([iter(one), iter([])]))


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"batch_size": 2}])
def test_it_predicts_the_mean_of_what_its_models_predict(names: list[str], toy: Path, options: dict) -> None:
    rows = [{"id": i, "image": toy / f"case{i}.png", "text": "a green spot"} for i in range(3)]
    rows += [{"image": toy / "case3.png"}, {"text": "red"}]
    together = mmfusion.Predictor.from_pretrained(names, device="cpu")
    assert isinstance(together, Ensemble) and together.labels == LABELS
    found = together.predict(rows, **options)
    single = [values(mmfusion.Predictor.from_pretrained(name, device="cpu").predict(rows, **options)) for name in names]
    np.testing.assert_allclose(values(found), np.mean(single, axis=0), atol=1e-6)
    assert [result["label"] for result in found] == [LABELS[i] for i in np.mean(single, axis=0).argmax(axis=1)]
    assert np.abs(single[0] - single[1]).max() > 0.01
    assert found[0]["id"] == 0 and "error" in together.predict([{}])[0]


def test_one_name_in_a_list_is_that_model(names: list[str]) -> None:
    assert isinstance(mmfusion.Predictor.from_pretrained(names[:1]).model, mmfusion.FusionModel)
    with pytest.raises(ValueError, match="got none"):
        mmfusion.Predictor.from_pretrained([])


def test_commands(names: list[str], toy: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(toy)
    assert cli.main(["predict", "--model", *names, "--data", data, "--output", "all.csv"]) == 0
    assert "the mean of 3 models" in capsys.readouterr().out
    for i, name in enumerate(names):
        assert cli.main(["predict", "--model", name, "--data", data, "--output", f"{i}.csv"]) == 0
    read = []
    for file in ("all.csv", "0.csv", "1.csv", "2.csv"):
        with Path(file).open(newline="") as opened:
            read.append([[float(row[f"p_{label}"]) for label in LABELS] for row in csv.DictReader(opened)])
    np.testing.assert_allclose(read[0], np.mean(read[1:], axis=0), atol=1e-5)

    assert cli.main(["evaluate", "--model", *names, "--data", data, "--output", "out"]) == 0
    figures = json.loads(Path("out/metrics.json").read_text())
    truth = read_cases(toy, processor_labels=LABELS).frame
    test = [i for i, split in enumerate(truth["split"]) if split == "test"]
    expected = classification_metrics(
        [LABELS.index(truth["label"].iloc[i]) for i in test], np.array(read[0])[test], LABELS
    )
    assert figures["nll"] == pytest.approx(expected["nll"], abs=1e-4) and figures["n"] == 6
    assert figures["calibration"] is None
    for option in ("--report", "--missing_modality"):
        assert cli.main(["evaluate", "--model", *names, "--data", data, option]) == 2
        assert "needs a single model" in capsys.readouterr().err
    assert cli.main(["explain", "--model", names[0], "--data", data, "--rows", "none"]) == 2


def test_what_is_refused(names: list[str], toy: Path, tmp_path: Path) -> None:
    model = mmfusion.create_model("test_concat", num_classes=3)
    member = Predictor(model, Processor(LABELS, image_size=8), name="first")
    with pytest.raises(ValueError, match="at least two models, got 1"):
        Ensemble([member])
    other = Predictor(model, Processor(["a", "c", "b"], image_size=8), name="second")
    with pytest.raises(ValueError, match=r"same order: first has \['a', 'b', 'c'\], second has \['a', 'c', 'b'\]"):
        Ensemble([member, other])
    views = mmfusion.create_model("multiview_lite0", num_classes=3, image_encoder="test_resnet")
    with pytest.raises(ValueError, match="first reads image, second reads views"):
        Ensemble([member, Predictor(views, member.processor, name="second")])
    together = mmfusion.Predictor.from_pretrained(names)
    with pytest.raises(ValueError, match="ensemble of 3"):
        together.explain({"text": "red"})
    with pytest.raises(ValueError, match="needs a single model"):
        measure(together, read_cases(toy), missing_modality=True)


def test_the_folder_of_an_ensemble(names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "best"
    write_ensemble(folder, {name.rpartition("/")[2]: Path(name.removeprefix("local-dir:")) for name in names[:2]})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    rows = [{"image": pixels, "text": "a red spot"}]
    expected = values(Predictor.from_pretrained(names[:2]).predict(rows))
    for name in (folder, str(tmp_path / "run"), f"local-dir:{folder}"):
        found = Predictor.from_pretrained(name)
        assert isinstance(found, Ensemble) and np.array_equal(values(found.predict(rows)), expected)
    assert len(Predictor.from_pretrained([folder, names[2]]).members) == 3
    # the folder may be moved; where one model is needed, the error names the members
    moved = folder.rename(tmp_path / "moved")
    assert np.array_equal(values(Predictor.from_pretrained(moved).predict(rows)), expected)
    with pytest.raises(ValueError, match=r"is an ensemble; use one of its members, such as .*moved/members/one"):
        mmfusion.create_model(moved)
    write_json(moved / "ensemble.json", {"format_version": 2, "members": ["members/one", "members/two"]})
    with pytest.raises(ValueError, match="has format_version 2, this mmfusion supports 1; update it"):
        Predictor.from_pretrained(moved)
    write_json(moved / "ensemble.json", {"members": ["members/one", "../one"]})
    with pytest.raises(ValueError, match="must list at least two subfolders"):
        Predictor.from_pretrained(moved)


def test_commands_take_the_folder_of_an_ensemble(
    names: list[str], toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ensemble(tmp_path / "e", {str(i): Path(name.removeprefix("local-dir:")) for i, name in enumerate(names[:2])})
    given = ["--model", str(tmp_path / "e"), "--data", str(toy), "--output"]
    assert cli.main(["predict", *given, str(tmp_path / "p.csv")]) == 0
    assert cli.main(["evaluate", *given, str(tmp_path / "v")]) == 0
    assert cli.main(["evaluate", *given, str(tmp_path / "r"), "--report"]) == 2
    assert "evaluate the members of an ensemble separately" in capsys.readouterr().err
