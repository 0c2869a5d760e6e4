"""``validate(config)``: evaluate a trained model at another site."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.artifacts.folder import read_config, resolve_artifact
from mmfusion.artifacts.locating import own_folder
from mmfusion.data import read_cases
from mmfusion.decisions import DecisionResult, Decisions
from mmfusion.evaluation.intervals import figure_intervals
from mmfusion.evaluation.measure import BOOTSTRAP, figures_of
from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.evaluation.operating import choose_points, decision_figures
from mmfusion.evaluation.site import PICTURE, describe_site
from mmfusion.evaluation.temperature import row_losses
from mmfusion.evaluation.weighted import ratio
from mmfusion.figures import Interval
from mmfusion.files import sole_writer, write_json, write_text
from mmfusion.inference.cases import Predictions
from mmfusion.inference.familiarity import USUAL, case_level
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.run import open_predictor
from mmfusion.inference.split import read_split
from mmfusion.inference.updates import FOLDER
from mmfusion.markdown import table
from mmfusion.records import to_plain
from mmfusion.results import Evaluation
from mmfusion.sites.config import ValidateConfig
from mmfusion.sites.updates import KINDS, Update, choose_update, fit_update
from mmfusion.task import Task

#: Metrics for comparing updates.
JUDGED = ("nll", "ece", "brier", "balanced_accuracy")

#: Minimum number of rows to fit updates on, and to evaluate them on.
FEWEST = 20


@dataclass
class Validation:
    """Result of ``mmfusion validate``.

    Attributes:
        site: Name of the site.
        home: Description of the model's own site, from the model or the reference; empty if unknown.
        away: Description of the other site.
        frozen: Metrics of the unchanged model on all labeled rows.
        updates: Update -> metric -> value on the evaluation rows, and ``gain``, the decrease in NLL.
        chosen: Update selected on the fitting rows.
        decisions: Operating points of the updated model, chosen on these rows, and their metrics on the others.
        fitted_on: Number of these rows.
        judged_on: Number of evaluation rows.
        folder: Output folder.
        path: File of the chosen update.
        stored: Its copy in the model's folder, or None.
    """

    site: str
    home: Mapping[str, Any]
    away: Mapping[str, Any]
    frozen: Evaluation
    updates: dict[str, dict[str, Interval]]
    chosen: str
    decisions: DecisionResult
    fitted_on: int
    judged_on: int
    folder: Path
    path: Path
    stored: Path | None = None

    def summary(self) -> str:
        """All results as text."""
        last = f"update written to {self.path}" + (f" and stored as {self.stored}" if self.stored else "")
        return f"{self.markdown()}\n{last}; use it with --calibration {self.stored.stem if self.stored else self.path}"

    def markdown(self) -> str:
        """Both sites side by side, the metrics of the model, and the updates."""
        figures = [(EVERY_METRIC[name].title, str(each)) for name, each in self.frozen.intervals.figures.items()]
        judged = [
            (f"**{kind}** (chosen)" if kind == self.chosen else kind, *(str(each) for each in own.values()))
            for kind, own in self.updates.items()
        ]
        names = [EVERY_METRIC[name].title for name in JUDGED]
        parts = [
            f"# {self.site}",
            table(("", "home", self.site), list(_beside(self.home, self.away))),
            f"## Unchanged model\n\n{self.frozen.n:,} rows; 95 % intervals over groups in brackets.",
            table(("figure", "value"), figures),
            f"## Updates\n\nFitted on {self.fitted_on:,} rows, evaluated on {self.judged_on:,} others. Selected by "
            "cross-validation on the fitting rows.",
            table(("update", *names, "gain in NLL"), judged),
            self.decisions.markdown(),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


@sole_writer
def validate(config: ValidateConfig) -> Validation:
    """Compare another site with the model's own, evaluate the model there, and update its probabilities.

    Raises:
        FileNotFoundError: The model or the data do not exist.
        FileExistsError: ``store`` is set and the model already has an update of that name.
        ValueError: There are bad rows or too few to fit and evaluate updates, or ``store`` needs a local folder.
    """
    predictor = open_predictor([config.model])
    if len(predictor.members) > 1:
        raise ValueError("validate needs a single model.")
    predictor.task.need_one_class("validate")
    folder, output = resolve_artifact(config.model), Path(config.output)
    site = re.sub("[^A-Za-z0-9._-]+", "-", config.site or Path(config.data).stem).strip("-") or "site"
    stored = own_folder(config.model) / FOLDER / f"{site}.json" if config.store else None
    if stored is not None and stored.exists():
        raise FileExistsError(f"{stored} already exists; choose another --site.")
    read: dict[str, Any] = {"labels": predictor.labels, "provenance": predictor.provenance}
    cases = read_split(config.data, config.split, dataset=config.dataset, **read)
    print(f"validating {predictor.name} on {len(cases):,} rows of {config.data}")
    output.mkdir(parents=True, exist_ok=True)
    inference: dict[str, Any] = {"batch_size": config.batch_size, "on_bad_row": config.dataset.on_bad_row}
    found = predictor.predict_cases(cases, output=output / "predictions.csv", **inference)
    away = describe_site(cases, predictor.processor) | _familiar(found)
    home = dict(predictor.provenance.get("site") or {})
    if config.reference is not None:
        home = describe_site(read_cases(config.reference, config.dataset), predictor.processor)
    fit, judge = _divided(found, config)
    old = _home_shares(home, predictor)
    kinds = [kind for kind in KINDS if kind != "prior_shift" or old is not None]
    local = (found.labels[fit], found.probabilities[fit])
    updates = [fit_update(kind, *local, old) for kind in kinds]
    chosen = choose_update(*local, found.groups[fit], old, config.seed)
    judged = judge_updates(found, judge, updates, predictor.task)
    decisions = _decisions(_updated(found, fit, chosen), _updated(found, judge, chosen), predictor, config)
    points = Decisions([each.point for each in decisions.points])
    path, content = output / f"{site}.json", _content(chosen, points, site, folder, int(fit.sum()), judged)
    for place in filter(None, (path, stored)):
        place.parent.mkdir(exist_ok=True)
        write_json(place, content, indent=1)
    frozen = figures_of(found, predictor.labels, predictor.calibration, predictor.task)
    counts = {"fitted_on": int(fit.sum()), "judged_on": int(judge.sum())}
    result = Validation(
        site, home, away, frozen, judged, chosen.kind, decisions, **counts, folder=output, path=path, stored=stored
    )
    write_text(output / "validation.md", result.markdown())
    told = {"site": site, "home": home, "away": away, "updates": to_plain(judged), "chosen": chosen.kind, **counts}
    told["operating_points"] = to_plain(decisions.points)
    write_json(output / "validation.json", {**told, "frozen": frozen.to_dict()}, indent=1)
    return result


def judge_updates(
    found: Predictions, rows: NDArray[np.bool_], updates: Sequence[Update], task: Task
) -> dict[str, dict[str, Interval]]:
    """Metrics of each update on some rows, with intervals from the same resamples.

    Args:
        found: Predictions without updates.
        rows: (N,) mask of the evaluation rows.
        updates: The updates.
        task: Task of the predictions.

    Returns:
        Kind -> the metrics of :data:`JUDGED`, and ``gain``, the decrease in NLL.
    """
    y, p, groups = found.labels[rows], found.probabilities[rows], found.groups[rows]
    result = {}
    for update in updates:
        q = update.apply(p)
        own, gain = task.rows(y, q), row_losses(y, p) - row_losses(y, q)

        def figures(w: Any, own: Any = own, gain: Any = gain) -> Any:
            weighted = own.weighted(w)
            return np.stack(
                [*(EVERY_METRIC[name](weighted) for name in JUDGED), ratio(w @ gain, w.sum(axis=1))], axis=1
            )

        result[update.kind] = dict(zip((*JUDGED, "gain"), figure_intervals(figures, groups, **BOOTSTRAP), strict=True))
    return result


def _divided(found: Predictions, config: ValidateConfig) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Random split by group into rows to fit updates on and rows to evaluate them on."""
    _, codes = np.unique(found.groups, return_inverse=True)
    order = np.random.default_rng(config.seed).permutation(codes.max(initial=-1) + 1)
    sizes = np.bincount(codes)[order].cumsum()
    count = (
        int(np.searchsorted(sizes, config.local, "left")) + 1 if config.local > 1 else round(config.local * len(order))
    )
    fit = np.isin(codes, order[:count])
    if min(fit.sum(), (~fit).sum()) < FEWEST:
        raise ValueError(
            f"Updates would be fitted on {fit.sum()} rows and evaluated on {(~fit).sum()}; each needs at "
            f"least {FEWEST}: add rows, or change --local."
        )
    return fit, ~fit


def _home_shares(home: Mapping[str, Any], predictor: Predictor) -> NDArray[np.float64] | None:
    """Class shares (C,) of the training data, or None if unknown."""
    counts = np.array([(home.get("labels") or {}).get(name, 0) for name in predictor.labels], dtype=np.float64)
    if not counts.sum():
        print("prior_shift is skipped: the class shares of the training data are unknown; set --reference DATA")
        return None
    found: NDArray[np.float64] = counts / counts.sum()
    return found


def _familiar(found: Predictions) -> dict[str, Any]:
    """Share of rows unlike the training data, in total and by modality."""
    if not found.familiarity:
        return {}
    level, unlike = case_level(found.familiarity)
    shares = {m: float(np.mean([m in words.split("+") for words in unlike])) for m in found.familiarity}
    return {"unlike": {"any": float(np.mean(level < USUAL)), **shares}}


def _updated(found: Predictions, rows: NDArray[np.bool_], update: Update) -> Predictions:
    """Some rows with the updated probabilities."""
    probabilities = update.apply(found.probabilities[rows]).astype(np.float32)
    return Predictions(found.frame[rows], found.labels[rows], probabilities, found.uncalibrated[rows], 0, {})


def _decisions(local: Predictions, others: Predictions, predictor: Predictor, config: ValidateConfig) -> DecisionResult:
    """Operating points chosen on the fitting cases, with their figures on the others."""
    asked: list[tuple[Sequence[str], list[str], float | None]]
    asked = [(point.alarm, [point.rule], point.prevalence) for point in predictor.decisions.points]
    if config.operating_points:
        asked = [(config.alarm, config.operating_points, None)]
    chosen = [
        point
        for alarm, rules, prevalence in asked
        for point in choose_points(local, predictor.labels, alarm=alarm, rules=rules, prevalence=prevalence)
    ]
    figures: dict[str, Any] = {"alarm": [], "thresholds": [], "points": chosen, "each_class": False}
    return decision_figures(others, predictor.labels, **figures, **BOOTSTRAP)


def _content(
    update: Update, decisions: Decisions, site: str, folder: Path, n: int, judged: Mapping[str, Any]
) -> dict[str, Any]:
    config = read_config(folder)
    about = {"format_version": 1, "site": site, "kind": update.kind, "n": n, "labels": config.get("label_names")}
    numbers = {"slope": update.slope.tolist(), "intercept": update.intercept.tolist()}
    chosen = {"decisions": to_plain(decisions)} if decisions.points else {}
    return {**about, "weights_sha256": config.get("weights_sha256"), **numbers, **chosen, "judged": to_plain(judged)}


def _beside(home: Mapping[str, Any], away: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Lines of the comparison of both sites."""

    def told(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, list):
            return f"{value[1]:g} ({value[0]:g} to {value[2]:g})"
        return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"

    def shares(side: Mapping[str, Any]) -> dict[str, float]:
        counts = side.get("labels") or {}
        return {name: count / max(1, sum(counts.values())) for name, count in counts.items()}

    yield "rows", told(home.get("rows")), told(away.get("rows"))
    own, others = shares(home), shares(away)
    yield from ((f"label {name}", told(own.get(name)), told(others[name])) for name in others)
    for key in ("missing", "unlike"):
        for name, value in (away.get(key) or {}).items():
            yield f"{key} {name}", told((home.get(key) or {}).get(name)), told(value)
    for name, value in (away.get("columns") or {}).items():
        before = (home.get("columns") or {}).get(name)
        if isinstance(value, dict):
            for cell, share in value.items():
                yield f"{name} = {cell}", told((before or {}).get(cell)), told(share)
        else:
            yield name, told(before), told(value)
    for name in PICTURE:
        if name in away:
            yield name, told(home.get(name)), told(away[name])
