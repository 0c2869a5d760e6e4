"""``auto(config)``: trains baselines, networks and their ensemble within a time limit, and saves the best network."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.artifacts.ensemble import write_ensemble
from mmfusion.auditing.config import AuditConfig
from mmfusion.auditing.run import audit
from mmfusion.data import CaseTable, check_images, read_cases
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation.calibration import calibrate
from mmfusion.evaluation.measure import figures_of, measure
from mmfusion.evaluation.metrics import METRICS
from mmfusion.experiments.plan import WITHOUT
from mmfusion.experiments.references import class_shares, gradient_boosting
from mmfusion.experiments.running import LOG, RESULT, begin, logged, note_data
from mmfusion.files import read_json, replacing, sole_writer, write_frame, write_json
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.tta import VIEWS
from mmfusion.ladder.clock import FORWARD, MEASURING, Clock, LeftOutError, Pace, TimeLimit
from mmfusion.ladder.config import AutoConfig
from mmfusion.ladder.leaderboard import Entry, Leaderboard
from mmfusion.ladder.regression import fit_head
from mmfusion.ladder.rungs import Networks, begun_epochs, plan_networks, seconds_of_step
from mmfusion.models.factory import resolve_config
from mmfusion.progress import in_words
from mmfusion.registry import load_plugins
from mmfusion.results import Evaluation
from mmfusion.settings import with_settings
from mmfusion.task import DEFAULT
from mmfusion.training.build import with_task
from mmfusion.training.check import check_settings
from mmfusion.training.config import RunConfig
from mmfusion.training.finish import save
from mmfusion.training.run import train
from mmfusion.training.run_folder import FREE_TO_CHANGE, RunFolder
from mmfusion.training.settling import settle

#: File that marks a folder of ``mmfusion auto``.
SETTINGS = "auto.yaml"


@sole_writer
def auto(config: AutoConfig) -> Leaderboard:
    """Train baselines, networks and an ensemble within a time limit; write a leaderboard and the best network.

    The steps: class shares; gradient boosting on the columns; logistic regression on features of a frozen tower; the
    image alone, fine-tuned; all modalities, fine-tuned; their ensemble. The validation rows select the winner, which is
    evaluated once on the test rows, if any. Steps that exceed the remaining time are skipped with a message. A second
    call continues: finished steps are kept and skipped ones are tried within the new time limit.

    Raises:
        FileExistsError: The folder has other contents.
        TimeoutError: The time is over before the first step.
        ValueError: The folder has other settings or data, there are bad rows, or no validation rows.
    """
    clock = Clock(config.seconds, config.began)
    load_plugins(config.plugins)
    base, output = with_task(config.run()), Path(config.output)
    if base.dataset.task != DEFAULT:
        raise ValueError(f"auto supports the task {DEFAULT}, not {base.dataset.task}; use train or compare.")
    cases = read_cases(base.data, base.dataset)
    reads_images = resolve_config(base.model.name, **base.model.overrides())["image_encoder"] is not None
    if not reads_images or cases.frame["image"].isna().all():
        base = with_settings(base, WITHOUT["image"])
    check_settings(base)
    _begin(config, output)
    _in_time(clock, "reading libraries and data")
    cases, is_sound = _audited(cases, base, output)
    _in_time(clock, "the audit")
    networks = plan_networks(base, cases)
    print("\n".join(networks.told))
    return Ladder(base, output, cases, networks, clock, is_sound).climb()


def _in_time(clock: Clock, done: str) -> None:
    if clock.left <= 0:
        words = f"The time limit of {in_words(clock.limit)} is reached: {done} took until {in_words(clock.spent)}"
        raise TimeoutError(f"{words}, and no model was started. Increase time_limit; finished work is kept.")


def _begin(config: AutoConfig, output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / SETTINGS).exists():
        raise FileExistsError(f"{output} is not empty and has no earlier {SETTINGS}; choose another --output.")
    output.mkdir(parents=True, exist_ok=True)
    begin(output / SETTINGS, asdict(config), free=(*FREE_TO_CHANGE, "time_limit"))


def _audited(cases: CaseTable, base: RunConfig, output: Path) -> tuple[CaseTable, bool]:
    """The audited rows, all with a split, and whether all images are known to be valid."""
    with_split, path = cases.split_or_draw(base.dataset, base.seed), output / "audit" / "audit.json"
    if missing := [name for name in ("train", "val") if name not in with_split.splits]:
        how = "set dataset.split_column null to have a split drawn, or see mmfusion split"
        raise ValueError(f"{cases.source} has no rows of the split {missing[0]!r}, needed to select models; {how}.")
    before = read_json(path) if path.is_file() else {}
    if before.get("fingerprint") == with_split.fingerprint():
        print(f"audited before, see {path.with_suffix('.md')}")
    else:
        found = audit(AuditConfig(base.data, str(path.parent), seed=base.seed, dataset=base.dataset))
        print("\n".join(_few(found.summary().splitlines())))
        before = read_json(path)
    # the audit has opened every image
    is_sound = cases.one_path and before["used"] == before["rows"] and not cases.problems
    cases = (cases if is_sound else check_images(cases)).resolve(base.dataset.on_bad_row)
    note_data(cases, output)
    return cases.split_or_draw(base.dataset, base.seed), is_sound


def _few(lines: list[str], most: int = 8) -> Iterator[str]:
    """The first line, errors and warnings, and the last line."""
    findings = [line for line in lines[1:-1] if not line.startswith("  note")]
    yield from (lines[0], *findings[:most])
    if len(findings) > most:
        yield f"  ... and {len(findings) - most} more"
    yield lines[-1]


class Ladder:
    """The steps of one call, in order.

    Args:
        base: The run from which all networks are derived.
        output: Output folder.
        cases: The rows, all with a split.
        networks: The networks that the data support.
        clock: Clock of the command.
        is_sound: Whether all images are known to be valid.
    """

    def __init__(
        self, base: RunConfig, output: Path, cases: CaseTable, networks: Networks, clock: Clock, is_sound: bool
    ) -> None:
        self.base, self.output, self.cases, self.networks, self.clock = base, output, cases, networks, clock
        self.is_sound, self.pace, self.screen = is_sound, Pace.after(clock.spent), sys.stdout
        self.val, self.metric = cases.select("val"), base.train.metric
        self.entries: list[Entry] = []

    def climb(self) -> Leaderboard:
        """Run all steps and evaluate the winner."""
        for name, about, is_network, climb in self._rungs():
            self._rung(name, about, is_network, climb)
        self._ensemble_rung()
        order = sorted(self.entries, key=self._rank)
        winner = next((entry.name for entry in order if entry.is_network and entry.intervals is not None), None)
        if winner is not None:
            self._crown(winner)
        return self._board(winner, None if winner is None else self._test(winner))

    def _rungs(self) -> Iterator[tuple[str, str, bool, Callable[[Path], dict[str, Any]]]]:
        """Name, description, whether it is a network, and function of each step except the last."""
        yield "prior", "class shares of the training rows", False, self._prior
        yield "gradient_boosting", "scikit-learn's, on the columns", False, self._boosting
        yield "logistic_regression", "on the features of the frozen tower", True, self._regression
        for name, run in self.networks.tuned.items():
            about = f"{run.model.name}, {'all modalities' if name == 'fusion' else f'{name} alone'}"
            yield name, about, True, partial(self._network, name, about, run)

    def _rung(self, name: str, about: str, is_network: bool, climb: Callable[[Path], dict[str, Any]]) -> None:
        folder = self.output / "steps" / name
        number = f"[{len(self.entries) + 1}/{len(self.networks.tuned) + 4}] {name}"
        is_done, began = (folder / RESULT).is_file(), self.clock.spent
        try:
            if not is_done:
                self.clock.check(0)
                if is_network:
                    self._say(f"{number}: {about}")
                told = {"about": about} | climb(folder)
                write_json(folder / RESULT, {"seconds": self.clock.spent - began} | told)
        except LeftOutError as reason:
            self.entries.append(Entry(name, str(reason), is_network))
            self._say(f"{number}: {reason}")
            return
        found = read_json(folder / RESULT)
        intervals = Evaluation.from_dict(read_json(folder / "metrics.json")).intervals
        self.entries.append(Entry(name, found["about"], is_network, intervals, found["seconds"]))
        done = "done before" if is_done else f"{found['seconds']:.0f} s"
        self._say(f"{number}: {self.metric} {intervals[self.metric]} ({done}), {in_words(self.clock.left)} left")
        self._board(None, None)

    def _prior(self, folder: Path) -> dict[str, Any]:
        return self._reference(folder, class_shares(self.cases, self.val))

    def _boosting(self, folder: Path) -> dict[str, Any]:
        table, began = self.networks.columns.table, self.clock.spent
        if table is None:
            raise LeftOutError("skipped: there are no columns")
        self._boosted(table, 5)
        self._spend(20 * (self.clock.spent - began), self.clock.left)
        names = ", ".join(table.names)
        return self._reference(folder, self._boosted(table, 100)) | {"about": f"scikit-learn's, on {names}"}

    def _boosted(self, table: TableColumns, iterations: int) -> NDArray[np.float64]:
        return gradient_boosting(self.cases, self.val, table, seed=self.base.seed, iterations=iterations)

    def _spend(self, seconds: float, budget: float) -> None:
        """Skip a step that costs more than the remaining time."""
        if seconds > budget:
            left = in_words(self.clock.left)
            raise LeftOutError(f"skipped: it takes about {in_words(seconds)}, but {left} are left")

    def _reference(self, folder: Path, probabilities: NDArray[np.float64]) -> dict[str, Any]:
        """Evaluate probabilities (N, C) of the validation rows."""
        names, p = self.cases.labels, probabilities.astype(np.float32)
        labels = np.array([names.index(label) for label in self.val.frame["label"]])
        folder.mkdir(parents=True, exist_ok=True)
        found = figures_of(Predictions(self.val.frame, labels, p, p, 0, {}), names)
        write_json(folder / "metrics.json", {**found.to_dict(), "split": "val"})
        return {}

    def _regression(self, folder: Path) -> dict[str, Any]:
        run = self.networks.frozen
        if run is None:
            raise LeftOutError("skipped: no tower has published weights to be frozen")
        self.clock.check(3 * self.pace.fixed)
        # features, calibration and metrics of the validation rows
        looks = 3 + 2 * len(VIEWS) * bool(run.train.tta)
        batches = (self.cases.splits["train"] + looks * len(self.val)) / run.train.batch_size
        self._spend(FORWARD * self._step(run) * batches + self.pace.fixed, self._budget())
        inference: dict[str, Any] = {"batch_size": run.train.batch_size}
        with logged(folder / LOG):
            predictor = settle(run, self.cases).predictor(self.cases)
            chosen = fit_head(predictor, self.cases, **inference, on_batch=lambda: self.clock.check(self.pace.fixed))
            began = self.clock.spent
            # neither a loss nor a sampler has changed the prior
            calibrate(predictor, self.val, tta=run.train.tta, **inference)
            found = measure(predictor, self.val, output=folder, **inference)
            save(predictor, folder / "best", {**found.to_dict(), "split": "val"})
        self.pace.fixed = max(self.pace.fixed, self.clock.spent - began)
        parts = predictor.network().config
        return {"about": f"{parts['image_encoder'] or parts['text_encoder']}, frozen; {chosen}"}

    def _network(self, name: str, about: str, run: RunConfig, folder: Path) -> dict[str, Any]:
        rest = [other for other in self.networks.tuned if not (self.output / "steps" / other / RESULT).is_file()]
        # time left when the next network starts
        end = self.clock.left - self._budget() / (len(rest) - rest.index(name))
        until = end + self.pace.fixed
        self.clock.check(until)
        steps, val_steps = (count / run.train.batch_size for count in (self.cases.splits["train"], len(self.val)))
        epochs, foretold = begun_epochs(RunFolder(folder)), 0.0
        if epochs is None:
            step = self._step(run)
            foretold = self.pace.epoch(step, steps, val_steps)
            # a stopped run evaluates the validation rows once more
            until += self.pace.epoch(step, 0, val_steps)
            epochs = self.pace.epochs(foretold, self.clock.left - end, run.train.epochs)
            if epochs < 1:
                left = in_words(max(self.clock.left - until, 0))
                raise LeftOutError(f"skipped: one epoch takes about {in_words(foretold)}, but {left} are left for it")
            self._say(f"  {epochs} epoch{'s' * (epochs > 1)} of about {in_words(foretold)}")
        settings = replace(run.train, epochs=epochs, head_epochs=min(run.train.head_epochs, epochs - 1), resume=True)
        run = replace(run, output=str(folder), train=settings)
        limit = TimeLimit(self.clock, until, lambda line: self._say(f"  {line}"), self.metric)
        began = self.clock.spent
        with logged(folder / LOG):
            try:
                done = train(run, images_checked=self.is_sound, judged_on=("val",), callbacks=[limit])
            except FloatingPointError as error:
                raise LeftOutError(f"failed: {error}") from None
            print(done.summary())
        if foretold:
            seconds = sum(record["seconds"] for record in done.history)
            self.pace.learn(foretold, seconds / limit.epochs, self.clock.spent - began - seconds)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "last", ignore_errors=True)
        cut = ", stopped by the limit" if limit.stopped else ""
        return {"about": f"{about}; epoch {done.best_epoch} of {len(done.history)}{cut}"}

    def _step(self, run: RunConfig) -> float:
        """Seconds of a training step of a network."""
        with logged(self.output / "steps" / LOG):
            return seconds_of_step(run, self.cases, enough=MEASURING * self.clock.left)

    def _budget(self) -> float:
        """Seconds left for training: ensemble and test rows cost about as much as the ends of two runs."""
        return self.clock.left - 2 * self.pace.fixed

    def _members(self) -> list[str]:
        """Members of the ensemble: fine-tuned networks, and logistic regression if there is only one."""
        done = [entry.name for entry in self.entries if entry.is_network and entry.intervals is not None]
        tuned = [name for name in reversed(done) if name != "logistic_regression"]
        return tuned if len(tuned) > 1 else [*tuned, *(name for name in done if name not in tuned)]

    def _ensemble_rung(self) -> None:
        """The last step; replaces the result of an earlier call with other networks."""
        members, told = self._members(), self.output / "steps" / "ensemble" / RESULT
        if told.is_file() and read_json(told)["members"] != members:
            shutil.rmtree(told.parent)
        self._rung("ensemble", "mean of networks", True, partial(self._ensemble, members))

    def _ensemble(self, members: list[str], folder: Path) -> dict[str, Any]:
        if len(members) < 2:
            raise LeftOutError("skipped: it needs two networks")
        self._spend(self.pace.fixed, self.clock.left)
        with logged(folder / LOG):
            together = Predictor.from_pretrained([self.output / "steps" / name / "best" for name in members])
            measure(together, self.val, output=folder)
        return {"about": f"mean of {' and '.join(members)}", "members": members}

    def _crown(self, winner: str) -> None:
        """Copy the winner to ``best``."""
        steps, best = self.output / "steps", self.output / "best"
        with replacing(best) as partial:
            if winner == "ensemble":
                members = read_json(steps / winner / RESULT)["members"]
                write_ensemble(partial, {name: steps / name / "best" for name in members})
                shutil.copy(steps / winner / "metrics.json", partial)
            else:
                shutil.copytree(steps / winner / "best", partial, dirs_exist_ok=True)

    def _test(self, winner: str) -> Evaluation | None:
        """Evaluate the winner on the test rows once; None without test rows or time."""
        folder, best = self.output / "steps" / winner / "test", self.output / "best"
        if "test" not in self.cases.splits:
            return None
        is_done = (folder / "metrics.json").is_file()
        if not is_done and self.clock.left < self.pace.fixed:
            self._say("test rows: skipped, the time limit is reached; a second call evaluates them")
            return None
        predictor = Predictor.from_pretrained(best)
        if not is_done:
            with logged(folder / LOG):
                measure(predictor, self.cases.select("test"), output=folder)
        found = read_json(folder / "metrics.json") | {"split": "test"}
        if winner == "ensemble":
            write_json(best / "metrics.json", found)
        else:
            save(predictor, best, found)
        return Evaluation.from_dict(found)

    def _rank(self, entry: Entry) -> tuple[bool, float]:
        if entry.intervals is None or (value := entry.intervals[self.metric].value) is None:
            return True, 0.0
        return False, -value if METRICS[self.metric].higher_is_better else value

    def _board(self, winner: str | None, test: Evaluation | None) -> Leaderboard:
        entries = sorted(self.entries, key=self._rank)
        board = Leaderboard(self.output, entries, self.metric, len(self.val), winner, test, self.clock.spent)
        write_frame(self.output / "leaderboard.csv", board.frame())
        return board

    def _say(self, line: str) -> None:
        """Print a line to the terminal, also while a run's output is redirected."""
        print(line, file=self.screen, flush=True)
