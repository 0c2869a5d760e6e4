from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score
from torch import nn

from mmfusion.data import Processor, fit_wordpiece
from mmfusion.evaluation.calibration import STRENGTHS, calibrate, calibration_figures, reliability
from mmfusion.evaluation.metrics import classification_metrics, expected_calibration_error
from mmfusion.evaluation.temperature import fit_temperature, temper
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.stream import predict_rows
from mmfusion.inference.temperature import class_probabilities
from mmfusion.inference.tta import views_of
from mmfusion.models import create_model, load_model, save_model
from mmfusion.outputs import FusionOutput
from mmfusion.task import task_named

TASK = task_named("multiclass", ["a", "b", "c"])


def overconfident(n: int = 1500, factor: float = 2.5, seed: int = 0):
    """Labels drawn from softmax(z), and overconfident logits ``factor`` z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4)) * 1.5
    labels = np.array([rng.choice(4, p=row) for row in softmax(z, axis=1)])
    return labels, factor * z


def test_temperature_is_that_of_an_independent_fit():
    labels, logits = overconfident()

    def loss(t):
        return -log_softmax(logits / t[0], axis=1)[np.arange(len(labels)), labels].mean()

    reference = minimize(loss, x0=[1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x[0]
    found = fit_temperature(labels, softmax(logits, axis=1))
    assert found == pytest.approx(reference, rel=1e-4)
    assert found == pytest.approx(2.5, rel=0.1)  # the values that generated them


def test_temperature_is_scikit_learns():
    """Its CalibratedClassifierCV has ``method="temperature"`` from 1.8 on."""
    from inspect import getsource

    from sklearn import calibration
    from sklearn.linear_model import LogisticRegression

    if "temperature" not in getsource(calibration.CalibratedClassifierCV):
        pytest.skip("this scikit-learn has no temperature scaling")
    from sklearn.frozen import FrozenEstimator

    labels, logits = overconfident()
    identity = LogisticRegression().fit(logits, labels)  # a model whose logits are its inputs
    identity.coef_, identity.intercept_ = np.eye(4), np.zeros(4)
    fitted = calibration.CalibratedClassifierCV(FrozenEstimator(identity), method="temperature").fit(logits, labels)
    ours = temper(softmax(logits, axis=1), fit_temperature(labels, softmax(logits, axis=1)))
    assert ours == pytest.approx(fitted.predict_proba(logits), abs=1e-4)


def test_tempering_is_softmax_of_divided_logits_and_can_be_undone():
    _, logits = overconfident(50)
    p = softmax(logits, axis=1)
    assert temper(p, 3.0) == pytest.approx(softmax(logits / 3, axis=1), abs=1e-12)
    assert temper(temper(p, 3.0), 1 / 3) == pytest.approx(p, abs=1e-9)
    with pytest.raises(ValueError, match="above 0"):
        temper(p, 0)


def test_no_error_asks_for_no_certainty():
    assert fit_temperature([0, 1], [[0.6, 0.4], [0.3, 0.7]]) == 1.0


def test_reliability_holds_the_calibration_error():
    labels, logits = overconfident(300)
    p = softmax(logits, axis=1)
    bins = reliability(labels, p)
    assert bins["count"].sum() == 300
    there = bins["count"] > 0
    gaps = np.abs(bins["accuracy"] - bins["confidence"])[there]
    assert (gaps * bins["count"][there]).sum() / 300 == pytest.approx(expected_calibration_error(labels, p))


class Constant(nn.Module):
    """The given logits for every batch."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, **batch) -> FusionOutput:
        scale = 1 if batch.get("pixel_values") is None else batch["pixel_values"].flatten(1)[:, :1]
        return FusionOutput(logits=self.logits * scale)


def test_the_temperature_is_in_every_probability():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    calibration = {"temperature": 2.0, "fitted_on": "val", "n": 100}
    plain = class_probabilities(logits)
    torch.testing.assert_close(plain, logits.softmax(-1))
    tempered = class_probabilities(logits, calibration)
    torch.testing.assert_close(tempered, torch.tensor([[1.0, 0.0, -0.5]]).softmax(-1))
    assert plain.numpy() == pytest.approx(temper(tempered.numpy(), 0.5), abs=1e-6)

    put_back = calibration | {"prior_strength": 0.5, "log_prior": [-1.0, -2.0, -0.5]}
    expected = torch.tensor([[(2 - 0.5) / 2, (0 - 1) / 2, (-1 - 0.25) / 2]]).softmax(-1)
    torch.testing.assert_close(class_probabilities(logits, put_back), expected)

    rows = [{"pixel_values": torch.rand(3, 4, 4)}]
    options = {"task": TASK, "calibration": calibration}
    for tta in (False, True):
        collate = lambda items: {"pixel_values": torch.stack([item["pixel_values"] for item in items])}  # noqa: E731
        (part,) = predict_rows(Constant(logits), rows, collate, tta=tta, **options)
        views = views_of(collate(rows)) if tta else [collate(rows)]
        mean = torch.stack([Constant(logits)(**view).logits.softmax(-1) for view in views]).mean(0).numpy()
        assert part.uncalibrated == pytest.approx(mean, abs=1e-6)
        assert part.probabilities == pytest.approx(temper(mean, 2.0), abs=1e-6)


def test_figures_before_are_those_without_calibration():
    labels, logits = overconfident(400)
    plain, names = softmax(logits, axis=1), list("abcd")
    assert calibration_figures(None, labels, plain, plain) is None
    fitted = {"temperature": 2.5, "fitted_on": "val", "n": 400}
    found = calibration_figures(fitted, labels, plain, temper(plain, 2.5))
    before, after = (classification_metrics(labels, p, names) for p in (plain, temper(plain, 2.5)))
    assert found.temperature == 2.5 and found.n == 400
    for name in ("ece", "nll", "brier"):
        assert found.before[name] == pytest.approx(before[name], abs=1e-9)
        assert found.after[name] == pytest.approx(after[name], abs=1e-9)
    assert found.after["nll"] < found.before["nll"]


def test_the_artefact_keeps_it(tmp_path):
    model, processor = create_model("test_image", num_classes=2), Processor(["a", "b"], image_size=32)
    predictor = Predictor(model, processor)

    def read(name):
        return Predictor.from_pretrained(f"local-dir:{tmp_path / name}")

    predictor.save_pretrained(tmp_path / "none")
    assert read("none").calibration is None
    predictor.calibration = {"temperature": 1.7, "fitted_on": "val", "n": 100}
    predictor.save_pretrained(tmp_path / "with")
    assert read("with").calibration == predictor.calibration
    path = tmp_path / "with" / "config.json"
    config = json.loads(path.read_text())
    assert config["calibration"] == predictor.calibration
    save_model(model, tmp_path / "with")  # other weights, another scale; the processor stays
    assert read("with").calibration is None and read("with").labels == ["a", "b"]
    config = json.loads(path.read_text())
    del config["calibration"]  # as written by earlier versions
    path.write_text(json.dumps(config))
    (tmp_path / "with" / "files.json").unlink()
    assert read("with").calibration is None
    for wrong in ({"temperature": -1, "fitted_on": "val", "n": 9}, {"temperature": 2.0}, 1.7):
        path.write_text(json.dumps({**config, "calibration": wrong}))
        with pytest.raises(ValueError, match=r"not a temperature above 0|calibration is 1\.7, not an object"):
            load_model(tmp_path / "with")
    for prior in ([0.0], [0.0, float("inf")], None):
        wrong = {"temperature": 1.0, "fitted_on": "val", "n": 9, "prior_strength": 0.5, "log_prior": prior}
        path.write_text(json.dumps({**config, "calibration": wrong}))
        with pytest.raises(ValueError, match="prior_strength and log_prior must be a number and 2"):
            load_model(tmp_path / "with")


def test_predictor_with_and_without(tmp_path):
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["a word"], 64)
    model = create_model("test_mibf", num_classes=3, text_args={"vocab_size": len(tokenizer)})
    calibration = {"temperature": 3.0, "fitted_on": "val", "n": 100}
    processor = Processor(["a", "b", "c"], image_size=32, tokenizer=tokenizer, max_length=8)
    Predictor(model, processor, calibration).save_pretrained(tmp_path)
    row = [{"text": "a word"}]
    given = Predictor.from_pretrained(f"local-dir:{tmp_path}").predict(row)[0]["probabilities"]
    plain = Predictor.from_pretrained(f"local-dir:{tmp_path}", calibrated=False).predict(row)[0]["probabilities"]
    assert list(given.values()) == pytest.approx(temper([*plain.values()], 3.0), abs=1e-6)
    explained = Predictor.from_pretrained(f"local-dir:{tmp_path}").explain(row[0])
    assert explained.probabilities == pytest.approx(given, abs=1e-6)
    assert explained.contributions.values["text"] == pytest.approx(explained.probability, abs=1e-6)


def test_a_probability_of_zero_is_no_infinite_certainty():
    """One error in 300 rows at a logit gap of 110, which float32 rounds to a probability of 0."""
    rng = np.random.default_rng(0)
    logits = np.stack([rng.uniform(5, 15, 300), np.zeros(300)], axis=1)
    logits[0, 0] = 110
    labels = np.zeros(300, dtype=int)
    labels[0] = 1
    p = torch.tensor(logits, dtype=torch.float32).softmax(-1).numpy()
    assert p[0, 1] == 0
    reference = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(300), labels].mean(), bounds=(0.05, 20), method="bounded"
    ).x
    assert fit_temperature(labels, p) == pytest.approx(reference, rel=0.1)


class Answers(Predictor):
    """Labels and outputs of a network, without and with augmented views."""

    task = TASK

    def __init__(self, labels, plain, viewed=None) -> None:
        self.answers = {False: plain, True: plain if viewed is None else viewed}
        self.truth = labels

    def predict_cases(self, cases, *, tta, **_):
        logs = log_softmax(self.answers[tta], axis=1).astype(np.float32)
        return Predictions(None, self.truth, None, np.exp(logs), 0, {}, scores=logs)


def without_prior(n=3000, seed=0):
    """Labels of three classes of unequal frequency, and logits log p(x | c) without the prior."""
    rng, shares = np.random.default_rng(seed), np.array([0.8, 0.15, 0.05])
    labels = rng.choice(3, n, p=shares)
    x = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    return labels, 1.5 * x, shares


def test_half_the_prior_is_put_back_before_the_temperature():
    labels, logits, shares = without_prior()
    predictor = Answers(labels, logits)
    calibrate(predictor, None, class_counts=shares * 2000, prior_strength=0.5)
    found = predictor.calibration
    assert found["prior_strength"] == 0.5 and np.exp(found["log_prior"]) == pytest.approx(shares)
    put_back = logits + 0.5 * np.log(shares)
    assert found["temperature"] == pytest.approx(fit_temperature(labels, softmax(put_back, axis=1)), rel=1e-4)
    given = class_probabilities(torch.tensor(logits), found).numpy()
    assert given == pytest.approx(softmax(put_back / found["temperature"], axis=1), abs=1e-5)
    predicted = calibrate(predictor, None)
    assert predictor.calibration.keys() == {"temperature", "fitted_on", "n", "conformal"} and predictor.tta is False
    scores = np.sort(1 - predicted.probabilities[np.arange(len(labels)), labels])
    threshold = scores[int(np.ceil((len(labels) + 1) * 0.9)) - 1]
    wanted = {"coverage": 0.9, "method": "lac", "thresholds": pytest.approx([threshold] * 3)}
    assert predictor.calibration["conformal"] == wanted


def test_auto_takes_the_strength_of_the_best_macro_f1():
    labels, logits, shares = without_prior()
    predictor = Answers(labels, logits)
    calibrate(predictor, None, class_counts=shares, prior_strength="auto")
    scores = [f1_score(labels, (logits + s * np.log(shares)).argmax(1), average="macro") for s in STRENGTHS]
    assert np.argmax(scores) > 0 and predictor.calibration["prior_strength"] == STRENGTHS[np.argmax(scores)]
    calibrate(predictor, None, class_counts=[1, 1, 1], prior_strength="auto")  # nothing to restore: the smallest
    assert "prior_strength" not in predictor.calibration


def test_with_few_rows_a_given_strength_is_applied_and_nothing_fitted():
    labels, logits, shares = without_prior(20)
    predictor = Answers(labels, logits)
    for strength, expected in ((0.5, 0.5), ("auto", None)):
        calibrate(predictor, None, class_counts=shares, prior_strength=strength, tta="auto")
        found = predictor.calibration or {}
        assert found.get("prior_strength") == expected and found.get("temperature", 1) == 1 and not predictor.tta


def test_views_are_kept_where_they_pay():
    labels, logits, _ = without_prior()
    noise = np.random.default_rng(1).normal(size=logits.shape)
    for plain, viewed, kept in ((logits + 2 * noise, logits, True), (logits, logits + 2 * noise, False)):
        predictor = Answers(labels, plain, viewed)
        calibrate(predictor, None, tta="auto")
        assert predictor.tta is kept
        temperature = fit_temperature(labels, softmax(logits, axis=1))
        assert predictor.calibration["temperature"] == pytest.approx(temperature, rel=1e-5)
    predictor = Answers(labels, logits, logits + 1e-9 * noise)  # equal except for chance
    calibrate(predictor, None, tta="auto")
    assert predictor.tta is False
