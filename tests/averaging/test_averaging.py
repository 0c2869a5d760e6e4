from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import mmfusion
from mmfusion.averaging import METHODS, average_weights, estimate_batch_norm, make_soup
from mmfusion.cli import main as cli
from mmfusion.data import Processor, fit_wordpiece, read_cases
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.models import load_model

LABELS = ["a", "b", "c"]
WORDS = ["a red green blue spot, patient of 30 years"]


def save(folder: Path, model: mmfusion.FusionModel, *, labels=LABELS, image_size=32, words=WORDS, training=None) -> str:
    processor = Processor(labels, image_size=image_size, tokenizer=fit_wordpiece(words, 128), max_length=24)
    provenance = {"dataset": {}, "seed": 0, "data_fingerprint": "x", **(training or {})}
    mmfusion.Predictor(model, processor, provenance=provenance).save_pretrained(folder)
    return f"local-dir:{folder}"


def build(name: str = "test_concat", **overrides) -> mmfusion.FusionModel:
    torch.manual_seed(0)
    vocab = len(fit_wordpiece(WORDS, 128))
    return mmfusion.create_model(name, num_classes=3, text_args={"vocab_size": vocab}, **overrides)


def moved(model: mmfusion.FusionModel, seed: int, scale: float = 0.05) -> mmfusion.FusionModel:
    """The model with noise on its weights and other BatchNorm means, like another run from the same start."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
        for name, buffer in other.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(scale * torch.randn_like(buffer))
    return other


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("runs")
    start = build()
    return [save(root / f"run{i}", moved(start, i)) for i in range(4)]


def state_of(name: str) -> dict[str, torch.Tensor]:
    return load_model(Path(name.removeprefix("local-dir:"))).state_dict()


def test_average_of_two_known_weights() -> None:
    a = {"w": torch.tensor([0.0, 2.0]), "half": torch.tensor([1.0], dtype=torch.float16), "n": torch.tensor(7)}
    b = {"w": torch.tensor([1.0, 4.0]), "half": torch.tensor([2.0], dtype=torch.float16), "n": torch.tensor(9)}
    found = average_weights([a, b])
    assert found["w"].tolist() == [0.5, 3.0] and found["half"].tolist() == [1.5] and found["n"].item() == 7
    assert found["half"].dtype == torch.float16


def test_uniform_soup_is_the_mean_and_an_ordinary_model(runs: list[str], toy: Path, tmp_path: Path) -> None:
    soup = make_soup(runs[:3], tmp_path / "soup")
    assert soup.ingredients == runs[:3] and soup.score is None and soup.scores == {} and soup.batch_norm == "averaged"
    states, found = [state_of(name) for name in runs[:3]], state_of(f"local-dir:{tmp_path / 'soup'}")
    for name, tensor in found.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, sum(state[name] for state in states) / 3, rtol=1e-5, atol=1e-6)
    config = json.loads((tmp_path / "soup" / "config.json").read_text())
    told = config["training"]["soup"]
    # no paths on this machine
    assert [each["model"] for each in told["ingredients"]] == [f"local-dir:run{i}" for i in range(3)]
    assert not any(name.removeprefix("local-dir:") in json.dumps(config) for name in runs)
    assert all(len(each["weights_sha256"]) == 64 for each in told["ingredients"])
    assert told["method"] == "uniform" and told["batch_norm"] == "averaged" and config["calibration"] is None
    (row,) = mmfusion.Predictor.from_pretrained(f"local-dir:{tmp_path / 'soup'}").predict([{"text": "red"}])
    assert row["label"] in LABELS


def test_predictors_are_mixed_as_the_models_of_their_names_are(runs: list[str], tmp_path: Path) -> None:
    make_soup(runs[:2], tmp_path / "named")
    predictors = [mmfusion.Predictor.from_pretrained(name, device="cpu") for name in runs[:2]]
    before = copy.deepcopy(predictors[0].model.state_dict())
    soup = make_soup(predictors, tmp_path / "given")
    assert soup.ingredients == runs[:2]
    assert all(torch.equal(x, before[name]) for name, x in predictors[0].model.state_dict().items())
    named, given = (state_of(f"local-dir:{tmp_path / folder}") for folder in ("named", "given"))
    assert all(torch.equal(x, given[name]) for name, x in named.items())


def nll(name: str, toy: Path) -> float:
    cases = read_cases(toy, processor_labels=LABELS).select("val")
    found = mmfusion.Predictor.from_pretrained(name, device="cpu").predict_cases(cases)
    return classification_metrics(found.labels, found.probabilities, LABELS)["nll"]


def test_greedy_soup_is_no_worse_than_its_best_ingredient(runs: list[str], toy: Path, tmp_path: Path) -> None:
    soup = make_soup(runs, tmp_path / "soup", data=toy, metric="nll", batch_size=8)
    assert soup.scores.keys() == set(runs)
    for name, score in soup.scores.items():
        assert score == pytest.approx(nll(name, toy), abs=1e-5)
    assert list(soup.scores.values()) == sorted(soup.scores.values())
    assert soup.ingredients[0] == min(soup.scores, key=soup.scores.get)
    assert soup.score <= min(soup.scores.values()) and soup.better_alone is None
    saved = f"local-dir:{tmp_path / 'soup'}"
    assert nll(saved, toy) == pytest.approx(soup.score, abs=1e-5)
    metrics = json.loads((tmp_path / "soup" / "metrics.json").read_text())
    assert metrics["nll"] == pytest.approx(soup.score, abs=1e-5) and metrics["split"] == "val"
    uniform = make_soup(runs, tmp_path / "uniform", data=toy, metric="nll", method="uniform", batch_size=8)
    assert uniform.batch_norm == "estimated" and uniform.ingredients == list(soup.scores)
    assert (uniform.better_alone is not None) == (uniform.score > min(soup.scores.values()))


def test_a_model_that_spoils_the_soup_is_left_out(runs: list[str], toy: Path, tmp_path: Path) -> None:
    good, bad = load_model(Path(runs[0].removeprefix("local-dir:"))), build()
    bad = moved(bad, 9, scale=3.0)
    names = [save(tmp_path / "bad", bad), save(tmp_path / "good", good)]
    soup = make_soup(names, tmp_path / "soup", data=toy, metric="nll", batch_size=8)
    assert soup.ingredients == [names[1]] and soup.batch_norm == "kept"
    for name, tensor in state_of(f"local-dir:{tmp_path / 'soup'}").items():
        assert torch.equal(tensor, good.state_dict()[name])
    told = json.loads((tmp_path / "soup" / "config.json").read_text())["training"]["soup"]
    assert told["left_out"] == ["local-dir:bad"]


def test_batch_norm_is_the_mean_over_batches_without_dropout() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.norm = nn.Dropout(0.9), nn.BatchNorm1d(2, momentum=0.1)

        def forward(self, x):
            return self.norm(self.drop(x))

    net = Net()
    net.norm.running_mean.fill_(100)
    second = {"x": torch.tensor([[5.0, 0.0], [5.0, 0.0]]), "labels": torch.tensor([0, 1])}
    batches = [{"x": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}, second]
    estimate_batch_norm(net, iter(batches))
    assert net.norm.running_mean.tolist() == [3.5, 2.0]
    assert net.norm.running_var.tolist() == [1.0, 4.0]  # of variances 2 and 8, and 0 and 0, with n - 1
    assert net.norm.momentum == 0.1 and not net.norm.training
    with pytest.raises(ValueError, match="No training rows"):
        estimate_batch_norm(net, iter([]))


def test_frozen_statistics_are_kept(tmp_path: Path) -> None:
    start = build()
    other = copy.deepcopy(start)
    with torch.no_grad():
        other.head.get_parameter(next(iter(dict(other.head.named_parameters())))).add_(1)
    names = [save(tmp_path / "a", start), save(tmp_path / "b", other)]
    assert make_soup(names, tmp_path / "soup").batch_norm == "kept"
    text = [save(tmp_path / f"t{i}", moved(build("test_text"), i)) for i in range(2)]
    assert make_soup(text, tmp_path / "text").batch_norm == "none"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {"fusion": "gated"}}, "architecture: fusion ('concat' and 'gated')"),
        ({"labels": ["a", "c", "b"]}, "preprocessing: labels (['a', 'b', 'c'] and ['a', 'c', 'b'])"),
        ({"image_size": 40}, "preprocessing: image_size (32 and 40)"),
        ({"words": ["another red green blue spot"]}, "preprocessing: tokenizer"),
    ],
)
def test_models_that_differ_are_refused_by_name(runs: list[str], tmp_path: Path, changed: dict, words: str) -> None:
    other = save(tmp_path / "other", build(**changed.pop("model", {})), **changed)
    with pytest.raises(ValueError) as raised:
        make_soup([runs[0], other], tmp_path / "soup")
    assert words in str(raised.value) and runs[0] in str(raised.value) and other in str(raised.value)
    assert not (tmp_path / "soup").exists()


def test_seeds_and_rows_may_differ_where_nothing_is_measured(tmp_path: Path) -> None:
    start = build()
    names = [
        save(
            tmp_path / f"seed{seed}",
            moved(start, seed),
            training={"seed": seed, "data_fingerprint": f"{seed}" * 64, "rows": {"train": 20}, "loss": {"name": "ce"}},
        )
        for seed in range(2)
    ]
    make_soup(names, tmp_path / "soup")
    told = json.loads((tmp_path / "soup" / "config.json").read_text())["training"]
    assert told["rows"] == {"train": 20} and "seed" not in told and "data_fingerprint" not in told
    card = (tmp_path / "soup" / "README.md").read_text()
    assert "uniform mean of `local-dir:seed0`, `local-dir:seed1`; BatchNorm statistics: averaged" in card
    assert "Loss: `ce`\n" in card and "Trained on: 20 train rows\n" in card


def test_dropout_may_differ(runs: list[str], tmp_path: Path) -> None:
    other = save(tmp_path / "other", build(head_args={"dropout": 0.4}, modality_dropout=0.2))
    assert make_soup([runs[0], other], tmp_path / "soup").ingredients == [runs[0], other]


def test_bad_requests(runs: list[str], toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "soup"
    with pytest.raises(ValueError, match="two different models"):
        make_soup([runs[0], runs[0]], out)
    with pytest.raises(ValueError, match="validation rows; give data"):
        make_soup(runs, out, method="greedy")
    with pytest.raises(ValueError, match=str(METHODS[0])):
        make_soup(runs, out, method="cold")
    with pytest.raises(ValueError, match="metric='loss' is not one of accuracy"):
        make_soup(runs, out, metric="loss")
    elsewhere = save(tmp_path / "elsewhere", build(), training={"data_fingerprint": "y"})
    with pytest.raises(ValueError, match="trained on different rows or splits"):
        make_soup([runs[0], elsewhere], out, data=toy)
    with pytest.raises(FileExistsError, match="not empty"):
        make_soup(runs, runs[0].removeprefix("local-dir:"))
    assert not out.exists() and not list(tmp_path.glob("*.partial"))


def test_command(runs: list[str], toy: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "soup"
    assert cli.main(["soup", "--models", *runs[:2], "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("in the soup") == 2 and "give --data" in said and "averaged like weights" in said
    options = ["--models", json.dumps(runs[:3]), "--output", str(tmp_path / "second"), "--data", str(toy)]
    assert cli.main(["soup", *options, "--method", "uniform", "--metric", "nll"]) == 0
    said = capsys.readouterr().out
    assert said.count("in the soup") == 3 and "recomputed" in said
    assert cli.main(["soup", "--models", *runs[:2], "--output", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
