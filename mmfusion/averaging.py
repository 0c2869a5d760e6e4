"""Model soups: one model whose weights are the mean of several runs' (Wortsman et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfusion.artifacts.folder import portable_name
from mmfusion.data import CaseTable, DatasetConfig, Processor
from mmfusion.data.processor import NOT_INPUTS
from mmfusion.evaluation.calibration import calibrate
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import METRICS, metric_value
from mmfusion.files import recover, replacing
from mmfusion.inference.cases import predict_cases
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split
from mmfusion.inference.stream import ROW_ERRORS, AllRows
from mmfusion.models import FusionModel, load_model, read_config, resolve_artifact, save_model
from mmfusion.settings import flat

METHODS = ("greedy", "uniform")

#: training rows that BatchNorm statistics are estimated on, at most: channel means over more change nothing.
STATISTICS_ROWS = 2048

State = dict[str, Tensor]


@dataclass(frozen=True)
class Ingredient:
    """A saved model that may go into a soup.

    Attributes:
        name: as the user gave it.
        config: its ``config.json``.
        processor: its processor.
        state: its weights.
        score: the metric on the validation rows; None where no data were given.
    """

    name: str
    config: dict[str, Any]
    processor: Processor
    state: State
    score: float | None = None


@dataclass(frozen=True)
class Soup:
    """What came of it.

    Attributes:
        path: folder of the saved model.
        ingredients: names of the models in it, the best first where they were measured.
        scores: model -> metric on the validation rows, for all that were offered; empty without data.
        score: that of the soup; None without data.
        batch_norm: what became of BatchNorm's statistics: ``none`` (the model has none), ``kept`` (the ingredients
            agree, or there is one), ``estimated`` on training rows, or ``averaged``.
        better_alone: the best model, where it alone is better than the soup.
    """

    path: Path
    ingredients: list[str]
    scores: dict[str, float]
    score: float | None
    batch_norm: str
    better_alone: str | None = None


def average_weights(states: Sequence[Mapping[str, Tensor]]) -> State:
    """The mean of floating-point tensors, taken in float64; other tensors are the first's."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in states[0].items()
    }


def make_soup(
    models: Sequence[str],
    output: str | Path,
    *,
    data: str | Path | None = None,
    dataset: DatasetConfig | None = None,
    method: str | None = None,
    metric: str = "balanced_accuracy",
    batch_size: int = 64,
) -> Soup:
    """Average the weights of several saved models of one architecture, and save the result as a model.

    A soup is worth something where the runs began with the same weights (pretrained encoders, and best the same seed
    for the rest) and differ in settings: their weights then lie in one basin. Of runs that began apart the mean is
    noise; an ensemble (``Predictor.from_pretrained([a, b])``) suits those.

    The means and variances of BatchNorm belong to the weights they were measured with. Where they differ between the
    ingredients, they are measured again on training rows; without data they are averaged too, which is wrong in
    general, and ``batch_norm`` of the result says so.

    Args:
        models: two at least: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make.
        data: root folder of the data set that the models were trained on. With it the soup is measured and calibrated
            on the validation rows; without, it has no temperature.
        dataset: how to read it; None reads it as the first model's training did.
        method: ``uniform`` takes all; ``greedy`` begins with the best on the validation rows and adds the others in
            their order, each if the soup is then no worse. None is ``greedy`` with data and ``uniform`` without.
        metric: figure that ``greedy`` looks at, one of :data:`~mmfusion.evaluation.metrics.METRICS`.
        batch_size: rows per step.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: models that differ in architecture, labels, preprocessing or, with data, in their rows and splits;
            ``greedy`` without data; an unknown method or metric.
    """
    output = Path(output).expanduser()
    method = method or ("uniform" if data is None else "greedy")
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(map(repr, METHODS))}.")
    if method == "greedy" and data is None:
        raise ValueError("A greedy soup is chosen on validation rows; give data, or method 'uniform'.")
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is not one of {', '.join(METRICS)}.")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(f"{output} is not empty; choose another output.")
    folders = [resolve_artifact(name) for name in models]
    if len(set(folders)) < max(2, len(folders)):
        raise ValueError(f"A soup is of two different models at least, got {', '.join(models) or 'none'}.")
    ingredients = [_ingredient(name, folder) for name, folder in zip(models, folders, strict=True)]
    _check_alike(ingredients)
    kitchen = _Kitchen(load_model(folders[0]), ingredients, data, dataset, metric, batch_size)
    if data is not None:
        ingredients = [replace(each, score=kitchen.score([each])) for each in ingredients]
        ingredients.sort(key=lambda each: -_goodness(each.score, metric))  # stable: of equals the first given
    chosen, score = kitchen.greedy(ingredients) if method == "greedy" else (ingredients, kitchen.score(ingredients))
    batch_norm = kitchen.mix(chosen)
    metrics = kitchen.measure()
    provenance = _provenance(chosen) | {
        "soup": {
            "method": method,
            "ingredients": [
                {
                    "model": portable_name(each.name),
                    "weights_sha256": each.config.get("weights_sha256"),
                    metric: each.score,
                }
                for each in chosen
            ],
            "left_out": [portable_name(each.name) for each in ingredients if each not in chosen],
            "batch_norm": batch_norm,
        }
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(output) as partial:
            chosen[0].processor.save_pretrained(partial)
            entries = {"training": provenance, "card": _shared(chosen, "card")}
            save_model(kitchen.model, partial, metadata=entries, metrics=metrics)
    finally:
        recover(output)  # a soup that failed leaves nothing behind
    scores = {each.name: each.score for each in ingredients if each.score is not None}
    best = ingredients[0]
    is_worse = score is not None and _goodness(score, metric) < _goodness(best.score, metric)
    names = [each.name for each in chosen]
    return Soup(output, names, scores, score, batch_norm, best.name if is_worse else None)


class _Kitchen:
    """One model whose weights are exchanged, and the rows that it is measured on."""

    def __init__(
        self,
        model: FusionModel,
        ingredients: Sequence[Ingredient],
        data: str | Path | None,
        dataset: DatasetConfig | None,
        metric: str,
        batch_size: int,
    ) -> None:
        self.model, self.processor = model, ingredients[0].processor
        self.metric, self.batch_size = metric, batch_size
        self.norms = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        }
        self.train: CaseTable | None = None
        self.val: CaseTable | None = None
        if data is not None:
            provenance = _provenance(ingredients)
            _check_same_rows(ingredients)
            read = dataset or DatasetConfig(**provenance.get("dataset", {}))
            given: dict[str, Any] = {"dataset": read, "labels": self.processor.labels, "provenance": provenance}
            self.val = read_split(data, "val", **given)
            if self.norms:
                self.train = read_split(data, "train", **given)

    def mix(self, ingredients: Sequence[Ingredient]) -> str:
        """Give the model the mean of the weights; returns what became of BatchNorm's statistics."""
        states = [each.state for each in ingredients]
        self.model.load_state_dict(average_weights(states))
        self.model.calibration = None
        self.model.eval()
        if not self.norms:
            return "none"
        if all(torch.equal(states[0][name], state[name]) for name in self._statistics() for state in states[1:]):
            return "kept"
        if self.train is None:
            return "averaged"
        estimate_batch_norm(self.model, self._batches(self.train))
        return "estimated"

    def score(self, ingredients: Sequence[Ingredient]) -> float | None:
        """The metric of their mean on the validation rows; None without any."""
        if self.val is None:
            return None
        self.mix(ingredients)
        found = predict_cases(
            self.model, self.processor, self.val, on_bad_row="skip", batch_size=self.batch_size, description="Tasting"
        )
        value = metric_value(self.metric, found.labels, found.probabilities)
        if value is None:
            raise ValueError(f"The validation rows have no {self.metric}: classes are missing; choose another metric.")
        return value

    def greedy(self, ingredients: Sequence[Ingredient]) -> tuple[list[Ingredient], float | None]:
        """The soup of ingredients, the best first, to which each is added that makes it no worse (algorithm 1)."""
        chosen, best = [ingredients[0]], ingredients[0].score
        for each in ingredients[1:]:
            score = self.score([*chosen, each])
            if _goodness(score, self.metric) >= _goodness(best, self.metric):
                chosen, best = [*chosen, each], score
        return chosen, best

    def measure(self) -> dict[str, Any] | None:
        """Calibrate the model on the validation rows and measure it there; None without any."""
        if self.val is None:
            return None
        predictor = Predictor(self.model, self.processor)
        calibrate(predictor, self.val, batch_size=self.batch_size)
        found = measure(predictor, self.val, on_bad_row="skip", batch_size=self.batch_size)
        return found.to_dict() | {"split": "val"}

    def _statistics(self) -> list[str]:
        return [f"{name}.{kind}" for name in self.norms for kind in ("running_mean", "running_var")]

    def _batches(self, cases: CaseTable) -> Iterator[dict[str, Tensor]]:
        """Training rows that have an image and can be read, as they look outside training, in a drawn order."""
        rows = AllRows(cases, self.processor)
        items: list[dict[str, Any]] = []
        full = 0
        for i in np.random.default_rng(0).permutation(len(rows))[:STATISTICS_ROWS]:
            try:
                item = rows[int(i)]
            except ROW_ERRORS:
                continue
            if not item.get("image_present", True):
                continue
            items.append(item)
            if len(items) == self.batch_size:
                yield rows.collate(items)
                items, full = [], full + 1
        # batches count alike in the mean, so that a small one would count for too much
        if not full and len(items) > 1:
            yield rows.collate(items)


@torch.no_grad()
def estimate_batch_norm(model: nn.Module, batches: Iterator[Mapping[str, Tensor]]) -> None:
    """Replace the running means and variances of BatchNorm by their mean over batches.

    The rest of the model computes as in evaluation: without dropout.

    Args:
        model: called as ``model(**batch)``; it is left in evaluation mode.
        batches: keyword tensors.

    Raises:
        ValueError: there is no batch.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps the mean over all batches
        norm.train()
    count = 0
    for batch in batches:
        model(**{name: value for name, value in batch.items() if name not in NOT_INPUTS})
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    if not count:
        raise ValueError("No training rows with an image to estimate BatchNorm's statistics on.")


def _goodness(score: float | None, metric: str) -> float:
    """A score, so that more is better."""
    assert score is not None
    return score if METRICS[metric].higher_is_better else -score


def _ingredient(name: str, folder: Path) -> Ingredient:
    model = load_model(folder)
    config = read_config(folder) | {"model": model.config}
    return Ingredient(name, config, Processor.from_pretrained(folder), dict(model.state_dict()))


def _check_alike(ingredients: Sequence[Ingredient]) -> None:
    """Refuse models whose weights do not mean the same, or that see their inputs differently."""
    first = ingredients[0]
    for other in ingredients[1:]:
        for kind, facts in (("preprocessing", _preprocessing), ("architecture", _architecture)):
            a, b = facts(first), facts(other)
            differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
            if differing:
                key = differing[0]
                values = "" if key == "tokenizer" else f" ({a.get(key)!r} and {b.get(key)!r})"
                more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
                raise ValueError(
                    f"A soup is of models that differ in nothing but their weights; {first.name} and {other.name} "
                    f"differ in their {kind}: {key}{values}{more}. An ensemble may differ so."
                )


def _architecture(ingredient: Ingredient) -> dict[str, Any]:
    """The model's keywords, but for rates of dropout, which change the training alone."""
    keywords = flat(ingredient.config["model"])
    return {name: value for name, value in keywords.items() if "drop" not in name.split(".")[-1]}


def _preprocessing(ingredient: Ingredient) -> dict[str, Any]:
    processor = ingredient.processor
    tokenizer: Any = processor.tokenizer
    return processor.to_dict() | {"tokenizer": None if tokenizer is None else tokenizer.backend_tokenizer.to_str()}


def _check_same_rows(ingredients: Sequence[Ingredient]) -> None:
    """Validation rows of one run must not be training rows of another."""
    prints = [(each.config.get("training") or {}).get("data_fingerprint") for each in ingredients]
    for each, other in zip(ingredients[1:], prints[1:], strict=True):
        if other != prints[0]:
            raise ValueError(
                f"{ingredients[0].name} and {each.name} were trained on different rows or splits: validation rows of "
                "one are training rows of the other, and measure nothing. Leave out data for a uniform soup."
            )


def _provenance(ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """What all of them say about their training; how the data are read is the first's."""
    first = ingredients[0].config.get("training") or {}
    return ({"dataset": first["dataset"]} if "dataset" in first else {}) | _shared(ingredients, "training")


def _shared(ingredients: Sequence[Ingredient], entry: str) -> dict[str, Any]:
    """What all of them say in an entry of their ``config.json``."""
    first, *others = [each.config.get(entry) or {} for each in ingredients]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
