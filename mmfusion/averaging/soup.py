"""Model soups: one model whose weights are the mean of several runs' (Wortsman et al., ICML 2022)."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmfusion.artifacts.folder import read_config, resolve_artifact
from mmfusion.artifacts.locating import portable_name
from mmfusion.averaging.alike import check_alike, check_same_rows, shared
from mmfusion.averaging.weights import average_weights, batch_norms, estimate_batch_norm
from mmfusion.data import CaseTable, DatasetConfig
from mmfusion.data.memory import DataSource
from mmfusion.evaluation.calibration import calibrate
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import EVERY_METRIC, metric_value
from mmfusion.files import replacing, sole_writer
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import ROW_ERRORS, AllRows
from mmfusion.inference.split import read_split
from mmfusion.names import check_choice

METHODS = ("greedy", "uniform")

#: Maximum number of training rows for estimating BatchNorm statistics; more do not change the channel means.
STATISTICS_ROWS = 2048

_BATCH_NORM = {
    "estimated": "BatchNorm statistics were recomputed on training rows",
    "averaged": "BatchNorm statistics were averaged like weights, which is wrong in general: give --data to recompute "
    "them on training rows",
}


@dataclass(frozen=True)
class Soup:
    """Result of ``soup``.

    Attributes:
        path: Folder of the saved model.
        ingredients: Names of the averaged models, the best first if they were evaluated.
        left_out: Names of the others.
        metric: Metric of the scores.
        scores: Model -> metric on the validation rows, for all candidates; empty without data.
        score: Metric of the averaged model; None without data.
        batch_norm: Origin of the BatchNorm statistics: ``none`` (the model has none), ``kept`` (the models agree, or
            there is one), ``estimated`` on training rows, or ``averaged``.
        better_alone: The best single model, if it is better than the average.
    """

    path: Path
    ingredients: list[str]
    left_out: list[str]
    metric: str
    scores: dict[str, float]
    score: float | None
    batch_norm: str
    better_alone: str | None = None

    def summary(self) -> str:
        """Score of each model and of the soup, and its folder."""
        scores = {name: f"{self.metric} {score:.4f}, " for name, score in self.scores.items()}
        lines = [f"  {name}: {scores.get(name, '')}in the soup" for name in self.ingredients]
        lines += [f"  {name}: {scores.get(name, '')}not used" for name in self.left_out]
        if self.score is None:
            lines.append("not evaluated and not calibrated: set --data for both")
        else:
            count = len(self.ingredients)
            what = f"the soup of {count}" if count > 1 else "no other improves it: the best"
            lines.append(f"{what} has {self.metric} {self.score:.4f} on the validation rows")
        if self.better_alone is not None:
            lines.append(f"{self.better_alone} alone is better than this soup on them")
        if self.batch_norm in _BATCH_NORM:
            lines.append(_BATCH_NORM[self.batch_norm])
        return "\n".join([*lines, f"saved in {self.path}"])


@dataclass(frozen=True)
class _Candidate:
    """A candidate for the soup; no hash without a weights file, no score without validation rows."""

    predictor: Predictor
    weights_sha256: str | None = None
    score: float | None = None

    @property
    def name(self) -> str:
        return self.predictor.name


@sole_writer
def make_soup(
    models: Sequence[str | os.PathLike[str] | Predictor],
    output: str | Path,
    *,
    data: DataSource | None = None,
    dataset: DatasetConfig | None = None,
    method: str | None = None,
    metric: str | None = None,
    batch_size: int = 64,
) -> Soup:
    """Average the weights of several saved models of one architecture, and save the result as a model.

    The runs must start from the same weights (pretrained encoders, and preferably the same seed for the rest) and
    differ in settings, so that their weights are in one basin. For runs from different weights the mean is noise; use
    an ensemble (``Predictor.from_pretrained([a, b])``).

    BatchNorm statistics belong to the weights they were computed with. If they differ between the models, they are
    recomputed on training rows; without data they are averaged, which is wrong in general, and reported in
    ``batch_norm`` of the result.

    The arguments are those of :class:`~mmfusion.averaging.config.SoupConfig`; ``models`` may also be predictors.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: Models that differ in architecture, labels, preprocessing or, with data, in their rows and splits;
            ``greedy`` without data; an unknown method or metric.
    """
    output = Path(output).expanduser()
    method = method or ("uniform" if data is None else "greedy")
    check_choice("method", method, METHODS)
    if method == "greedy" and data is None:
        raise ValueError("A greedy soup is chosen on validation rows; give data, or method 'uniform'.")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(f"{output} is not empty; choose another output.")
    candidates = _candidates(models)
    check_alike([each.predictor for each in candidates])
    task = candidates[0].predictor.task
    metric = metric or task.metric
    if metric not in task.metrics:
        raise ValueError(f"metric={metric!r} is not one of {', '.join(task.metrics)}.")
    mixer = _Mixer(candidates, data, dataset, metric, batch_size)
    if data is not None:
        candidates = [replace(each, score=mixer.score([each])) for each in candidates]
        candidates.sort(key=lambda each: -_goodness(each.score, metric))  # stable: ties keep the given order
    chosen, score = mixer.greedy(candidates) if method == "greedy" else (candidates, mixer.score(candidates))
    left_out = [each for each in candidates if each not in chosen]
    batch_norm = mixer.mix(chosen)
    metrics = mixer.measure(chosen)
    ingredients = [
        {"model": portable_name(each.name), "weights_sha256": each.weights_sha256, metric: each.score}
        for each in chosen
    ]
    about = {"method": method, "ingredients": ingredients, "left_out": [portable_name(each.name) for each in left_out]}
    mixer.predictor.provenance = _provenance(chosen) | {"soup": about | {"batch_norm": batch_norm}}
    mixer.predictor.card = shared([each.predictor.card for each in chosen])
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as partial:
        mixer.predictor.save_pretrained(partial, metrics)
    best = candidates[0]
    is_worse = score is not None and _goodness(score, metric) < _goodness(best.score, metric)
    return Soup(
        output,
        [each.name for each in chosen],
        [each.name for each in left_out],
        metric,
        {each.name: each.score for each in candidates if each.score is not None},
        score,
        batch_norm,
        best.name if is_worse else None,
    )


def _candidates(models: Sequence[str | os.PathLike[str] | Predictor]) -> list[_Candidate]:
    """The models, loaded if given by name."""
    distinct = {id(model) if isinstance(model, Predictor) else resolve_artifact(model).resolve() for model in models}
    if len(distinct) < max(2, len(models)):
        names = [model.name if isinstance(model, Predictor) else os.fspath(model) for model in models]
        raise ValueError(f"A soup needs at least two different models, got {', '.join(names) or 'none'}.")
    return [_candidate(model) for model in models]


def _candidate(model: str | os.PathLike[str] | Predictor) -> _Candidate:
    if isinstance(model, Predictor):
        return _Candidate(model)
    weights = read_config(resolve_artifact(model)).get("weights_sha256")
    return _Candidate(Predictor.from_pretrained(model, device="cpu"), weights)


class _Mixer:
    """One model with exchangeable weights, and the rows to evaluate it on."""

    def __init__(
        self,
        candidates: Sequence[_Candidate],
        data: DataSource | None,
        dataset: DatasetConfig | None,
        metric: str,
        batch_size: int,
    ) -> None:
        first = candidates[0].predictor
        self.model = copy.deepcopy(first.network())
        self.predictor = Predictor(self.model, first.processor)
        self.metric, self.batch_size = metric, batch_size
        self.norms = batch_norms(self.model)
        self.train: CaseTable | None = None
        self.val: CaseTable | None = None
        if data is not None:
            provenance = _provenance(candidates)
            check_same_rows([each.predictor for each in candidates])
            read = dataset or first.dataset
            given: dict[str, Any] = {"dataset": read, "labels": first.labels, "provenance": provenance}
            self.val = read_split(data, "val", **given)
            if self.norms:
                self.train = read_split(data, "train", **given)

    def mix(self, candidates: Sequence[_Candidate]) -> str:
        """Set the model to the mean of the weights; returns the origin of the BatchNorm statistics."""
        states = [each.predictor.network().state_dict() for each in candidates]
        self.model.load_state_dict(average_weights(states))
        self.model.eval()
        self.predictor.calibration = None
        if not self.norms:
            return "none"
        statistics = [f"{name}.{kind}" for name in self.norms for kind in ("running_mean", "running_var")]
        if all(torch.equal(states[0][name], state[name]) for name in statistics for state in states[1:]):
            return "kept"
        if self.train is None:
            return "averaged"
        estimate_batch_norm(self.model, self._batches(self.train))
        return "estimated"

    def score(self, candidates: Sequence[_Candidate]) -> float | None:
        """The metric of the mean on the validation rows; None without any."""
        if self.val is None:
            return None
        self.mix(candidates)
        options: dict[str, Any] = {"on_bad_row": "skip", "batch_size": self.batch_size, "description": "Validating"}
        found = self.predictor.predict_cases(self.val, **options)
        value = metric_value(self.metric, found.labels, found.probabilities, self.predictor.task)
        if value is None:
            raise ValueError(f"The validation rows have no {self.metric}: classes are missing; choose another metric.")
        return value

    def greedy(self, candidates: Sequence[_Candidate]) -> tuple[list[_Candidate], float | None]:
        """The best candidate, and each other that does not make the mean worse (algorithm 1)."""
        chosen, best = [candidates[0]], candidates[0].score
        for each in candidates[1:]:
            score = self.score([*chosen, each])
            if _goodness(score, self.metric) >= _goodness(best, self.metric):
                chosen, best = [*chosen, each], score
        return chosen, best

    def measure(self, chosen: Sequence[_Candidate]) -> dict[str, Any] | None:
        """Calibrate and evaluate the model on the validation rows; None without any.

        If an ingredient restores part of the prior or averages over views, these are chosen again.
        """
        if self.val is None:
            return None
        ingredients = [each.predictor for each in chosen]
        priors = [p.calibration["log_prior"] for p in ingredients if p.calibration and "log_prior" in p.calibration]
        decisions: dict[str, Any] = {"tta": any(p.tta for p in ingredients) and "auto"}
        if priors:
            decisions |= {"prior_strength": "auto", "class_counts": np.exp(priors[0])}
        calibrate(self.predictor, self.val, batch_size=self.batch_size, **decisions)
        found = measure(self.predictor, self.val, on_bad_row="skip", batch_size=self.batch_size)
        return found.to_dict() | {"split": "val"}

    def _batches(self, cases: CaseTable) -> Iterator[dict[str, Tensor]]:
        """Readable training rows with an image, as encoded for evaluation, in random order."""
        rows = AllRows(cases, self.predictor.processor)
        device = next(self.model.parameters()).device
        items: list[dict[str, Any]] = []
        full = 0
        for i in np.random.default_rng(0).permutation(len(rows))[:STATISTICS_ROWS].tolist():
            with suppress(*ROW_ERRORS):
                items += [item for item in [rows[i]] if item.get("image_present", True)]
            if len(items) == self.batch_size:
                yield {name: value.to(device) for name, value in rows.collate(items).items()}
                items, full = [], full + 1
        # batches have equal weight in the mean, so a small one would count too much
        if not full and len(items) > 1:
            yield {name: value.to(device) for name, value in rows.collate(items).items()}


def _goodness(score: float | None, metric: str) -> float:
    """The score, negated if lower is better."""
    assert score is not None
    return score if EVERY_METRIC[metric].higher_is_better else -score


def _provenance(candidates: Sequence[_Candidate]) -> dict[str, Any]:
    """Training facts that all models share; the settings for reading data are those of the first."""
    entries = [each.predictor.provenance for each in candidates]
    return ({"dataset": entries[0]["dataset"]} if "dataset" in entries[0] else {}) | shared(entries)
