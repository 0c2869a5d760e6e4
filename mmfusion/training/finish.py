"""End of a run: saves the models, then calibrates and evaluates the best one and saves it with its metrics."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import PartialState

from mmfusion.data import CaseTable
from mmfusion.decisions import Decisions
from mmfusion.evaluation.calibration import FEWEST, calibrate
from mmfusion.evaluation.familiarity import fit_familiarity
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.operating import choose_points, choose_pooling
from mmfusion.evaluation.plots import plot_training_curves
from mmfusion.evaluation.site import describe_site
from mmfusion.files import replacing
from mmfusion.inference.cases import Predictions
from mmfusion.inference.description import VIEWS
from mmfusion.inference.predictor import Predictor
from mmfusion.results import Evaluation, calibration_words
from mmfusion.task import Task
from mmfusion.training.build import label_counts
from mmfusion.training.config import RunConfig
from mmfusion.training.epochs import Record, best_of
from mmfusion.training.lora import without_adapters
from mmfusion.training.rows import Rows
from mmfusion.training.run_folder import RunFolder
from mmfusion.training.unread import modalities_of, warnings_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
        folder: Run folder.
        best: Saved model of the best epoch.
        last: Saved model of the last epoch.
        best_epoch: Number of the best epoch, from 1.
        val: Validation metrics of the best epoch; empty without validation rows.
        test: Metrics of the best model on the test rows, measured once; None without test rows.
        history: Records of all epochs, as in ``metrics.jsonl``.
        evaluation: Metrics of the best model on ``split``; None without test and validation rows, and outside the
            main process.
        split: Split on which the best model was evaluated: ``test``, else ``val``, else None.
        tta: Whether the best model averages over test-time augmentations.
        is_main: Whether this process writes the run folder.
    """

    folder: Path
    best: Path
    last: Path
    best_epoch: int
    val: dict[str, float]
    test: dict[str, Any] | None
    history: list[Record]
    evaluation: Evaluation | None = None
    split: str | None = None
    tta: bool = False
    is_main: bool = True

    @cached_property
    def predictor(self) -> Predictor:
        """The best model, loaded on first access."""
        return Predictor.from_pretrained(f"local-dir:{self.best}")

    def summary(self) -> str:
        """Headline metrics with intervals, the best epoch and the folder; empty outside the main process."""
        if not self.is_main:
            return ""
        lines, fitted = [], None
        if self.evaluation is not None:
            intervals, fitted = self.evaluation.intervals, self.evaluation.calibration
            lines.append(f"{self.split}: {', '.join(f'{name} {figure}' for name, figure in intervals.figures.items())}")
        chosen = f", {calibration_words(vars(fitted))}" if fitted else ""
        chosen += f", {VIEWS}" if self.tta else ""
        lines.append(f"best epoch {self.best_epoch} of {len(self.history)}{chosen}; saved in {self.best}")
        return "\n".join(lines)


def save(predictor: Predictor, folder: Path, metrics: dict[str, Any]) -> None:
    """Write a model folder, with encoder adapters merged into the weights."""
    network = predictor.network()
    plain = without_adapters(network)
    ordinary = predictor if plain is network else replace(predictor, model=plain)
    with replacing(folder) as partial:
        ordinary.save_pretrained(partial, metrics)


def _decided(config: RunConfig, validation: Predictions, task: Task) -> Decisions:
    """Operating points and the pooling of groups from the calibrated validation rows; empty if a row has several
    classes.
    """
    if not task.one_class:
        return Decisions()
    rules: dict[str, Any] = {"rules": config.train.operating_points, "prevalence": config.train.prevalence}
    points = choose_points(validation, task.labels, alarm=config.train.alarm, **rules)
    return Decisions(points, choose_pooling(validation))


def finish(
    config: RunConfig,
    folder: RunFolder,
    cases: CaseTable,
    predictor: Predictor,
    rows: Rows,
    history: list[Record],
    judged_on: Sequence[str],
) -> TrainResult:
    """Save the last weights; calibrate the best ones on the validation rows and evaluate them on the first split.

    Only the main process writes. ``folder`` has the best model, ``predictor`` the last weights, and ``rows`` are those
    of ``cases`` as opened for training.
    """
    position = best_of(history, config.train.metric)
    assert position is not None
    best = history[position]
    val = {name: best[name] for name in predictor.task.metrics if name in best}
    split = next((name for name in judged_on if name in cases.splits), None)
    evaluation: Evaluation | None = None
    tta = False
    is_main = PartialState().is_main_process
    if is_main:
        save(predictor, folder.last, history[-1])
        plot_training_curves(folder.metrics, folder.root / "training_curves.png")
        device = next(predictor.network().parameters()).device
        name, memory = f"local-dir:{folder.best}", predictor.channels_last
        chosen = Predictor.from_pretrained(name, device=device, channels_last=memory)
        inference: dict[str, Any] = {"batch_size": config.train.batch_size, "workers": config.train.workers}
        inference["open_rows"] = rows.open_rows
        validation: Predictions | None = None
        if "val" in cases.splits:
            choices: dict[str, Any] = {"prior_strength": config.train.prior_strength, "tta": config.train.tta}
            choices["class_counts"] = label_counts(cases)["class_counts"]
            validation = calibrate(chosen, cases.select("val"), **choices, **inference)
            tta = chosen.tta
            if not (chosen.calibration or {}).get("n"):
                enough = f"; {FEWEST} are needed" if chosen.task.one_class else ""
                logger.warning("not calibrated: only %d validation rows%s", len(validation.labels), enough)
            chosen.decisions = _decided(config, validation, chosen.task)
            if config.train.familiarity:
                about_rows: dict[str, Any] = {"min_patients": config.privacy.min_patients, "seed": config.seed}
                about_rows |= {"batch_size": config.train.batch_size, "workers": config.train.workers}
                of_splits = (cases.select(name) for name in ("train", "val"))
                chosen.familiarity = fit_familiarity(chosen, *of_splits, **about_rows)
        if split is not None:
            fewest = 20 * config.privacy.min_patients  # min_patients rows are beyond each outer quantile
            chosen.provenance |= {"site": describe_site(cases.select("train"), chosen.processor, fewest)}
            on_bad_row = config.dataset.on_bad_row
            asked: dict[str, Any] = {"output": folder.root, "on_bad_row": on_bad_row}
            if config.train.sensitivity is not None and split == "test":
                asked |= {"validation": validation, "sensitivity": config.train.sensitivity}
            asked |= {"alarm": config.train.alarm, "prevalence": config.train.prevalence}
            evaluation = measure(chosen, cases.select(split), **asked, **inference)
            about: dict[str, Any] = {"split": split, "epoch": best["epoch"], "val": val}
            about |= {"moved_by": moved} if (moved := modalities_of(best)) else {}
            save(chosen, folder.best, {**evaluation.to_dict(), **about})
        for line in warnings_of(best):
            logger.warning(line)
    return TrainResult(
        folder=folder.root,
        best=folder.best,
        last=folder.last,
        best_epoch=best["epoch"],
        val=val,
        test=evaluation.to_dict() if evaluation is not None and split == "test" else None,
        history=history,
        evaluation=evaluation,
        split=split,
        tta=tta,
        is_main=is_main,
    )
