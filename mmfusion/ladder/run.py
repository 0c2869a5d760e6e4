"""``auto(config)``: climb from the class shares to an ensemble of networks, and stop in time with the best saved."""

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
from mmfusion.data.splits import group_codes
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation.calibration import calibrate
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.measure import BOOTSTRAP, measure
from mmfusion.evaluation.metrics import METRICS
from mmfusion.experiments.plan import WITHOUT
from mmfusion.experiments.references import class_shares, gradient_boosting
from mmfusion.experiments.running import LOG, RESULT, begin, logged, note_data
from mmfusion.files import read_json, replacing, write_json
from mmfusion.inference.predictor import Predictor
from mmfusion.ladder.clock import FORWARD, Clock, OutOfTimeError, Pace, TimeLimit, in_words
from mmfusion.ladder.config import AutoConfig
from mmfusion.ladder.leaderboard import Entry, Leaderboard
from mmfusion.ladder.regression import fit_head
from mmfusion.ladder.rungs import Networks, begun_epochs, plan_networks, seconds_of_step
from mmfusion.models.factory import resolve_config
from mmfusion.registry import load_plugins
from mmfusion.results import Evaluation
from mmfusion.settings import with_settings
from mmfusion.training.check import check_settings
from mmfusion.training.config import RunConfig
from mmfusion.training.finish import save
from mmfusion.training.run import train
from mmfusion.training.run_folder import FREE_TO_CHANGE, RunFolder
from mmfusion.training.settling import settle

#: what tells the ladder that a folder is of.
SETTINGS = "auto.yaml"


def auto(config: AutoConfig) -> Leaderboard:
    """Climb a ladder of models within a time, and leave a leaderboard and the best network.

    The rungs: class shares; gradient boosting of the columns; logistic regression on features of a frozen tower; the
    image alone, fine-tuned; all modalities, fine-tuned; the mean of these. Validation rows choose; test rows, where
    there are any, are looked at once, for the winner. A rung that costs more than the time left is skipped, and said
    so. A second call goes on: what is finished stays, and what was skipped is tried with the new time.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: The folder holds another ladder or one on other data, bad rows, or no validation rows.
    """
    clock = Clock(config.seconds, config.began)
    load_plugins(config.plugins)
    base, output = config.run(), Path(config.output)
    cases = read_cases(base.data, base.dataset)
    reads_images = resolve_config(base.model.name, **base.model.overrides())["image_encoder"] is not None
    if not reads_images or cases.frame["image"].isna().all():
        base = with_settings(base, WITHOUT["image"])
    check_settings(base)
    _begin(config, output)
    cases, is_sound = _audited(cases, base, output)
    networks = plan_networks(base, cases)
    print("\n".join(networks.told))
    return Ladder(base, output, cases, networks, clock, is_sound).climb()


def _begin(config: AutoConfig, output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / SETTINGS).exists():
        raise FileExistsError(f"{output} is not empty and holds no earlier {SETTINGS}; choose another --output.")
    output.mkdir(parents=True, exist_ok=True)
    begin(output / SETTINGS, asdict(config), free=(*FREE_TO_CHANGE, "time_limit"))


def _audited(cases: CaseTable, base: RunConfig, output: Path) -> tuple[CaseTable, bool]:
    """The rows, each in a split, after the audit of them; and whether all images are known to be sound."""
    with_split, path = cases.split_or_draw(base.dataset, base.seed), output / "audit" / "audit.json"
    if missing := [name for name in ("train", "val") if name not in with_split.splits]:
        how = "set dataset.split_column null to have a split drawn, or see mmfusion split"
        raise ValueError(f"{cases.source} has no rows of the split {missing[0]!r}, and validation rows choose; {how}.")
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
    """The rungs of one call, climbed in order.

    Args:
        base: The run that all networks are variants of.
        output: Folder of the ladder.
        cases: The rows, each in a split.
        networks: The networks that they allow.
        clock: The time.
        is_sound: Whether all images are known to be sound.
    """

    def __init__(
        self, base: RunConfig, output: Path, cases: CaseTable, networks: Networks, clock: Clock, is_sound: bool
    ) -> None:
        self.base, self.output, self.cases, self.networks, self.clock = base, output, cases, networks, clock
        self.is_sound, self.pace, self.screen = is_sound, Pace(), sys.stdout
        self.val = cases.select("val")
        self.val = replace(self.val, frame=self.val.frame[self.val.frame["label"].notna()])
        self.metric = base.train.metric
        self.entries: list[Entry] = []
        self.measured: dict[str, float] = {}

    def climb(self) -> Leaderboard:
        """Climb all rungs, and judge the winner."""
        for name, about, is_network, climb in self._rungs():
            self._rung(name, about, is_network, climb)
        order = sorted(self.entries, key=self._rank)
        winner = next((entry.name for entry in order if entry.is_network and entry.intervals is not None), None)
        if winner is not None:
            self._crown(winner)
        test = self._test(winner) if winner is not None and "test" in self.cases.splits else None
        return self._board(winner, test)

    def _rungs(self) -> Iterator[tuple[str, str, bool, Callable[[Path], str | dict[str, Any]]]]:
        """Name, words, whether it is a network, and what climbs it: seconds and words, or why it is skipped."""
        yield "prior", "class shares of the training rows", False, self._prior
        yield "gradient_boosting", "scikit-learn's, of the columns", False, self._boosting
        yield "logistic_regression", "on the features of the frozen tower", True, self._regression
        for name, run in self.networks.tuned.items():
            what = "all modalities" if name == "fusion" else f"{name} alone"
            yield name, f"{run.model.name}, {what}", True, partial(self._network, name, run)
        yield "ensemble", "mean of networks", True, self._ensemble

    def _rung(self, name: str, about: str, is_network: bool, climb: Callable[[Path], str | dict[str, Any]]) -> None:
        folder = self.output / "steps" / name
        number = f"[{len(self.entries) + 1}/{len(self.networks.tuned) + 4}] {name}"
        is_done = (folder / RESULT).is_file()
        began = self.clock.spent
        found: str | dict[str, Any]
        if is_done:
            found = read_json(folder / RESULT)
        elif self.clock.left <= 0:
            found = "skipped: the time is over"
        else:
            if is_network:
                self._say(f"{number}: {about}")
            try:
                found = climb(folder)
            except OutOfTimeError:
                found = "skipped: the time was over before it was done"
        if isinstance(found, str):
            self.entries.append(Entry(name, found, is_network))
            self._say(f"{number}: {found}")
            return
        if not is_done:
            found = dict[str, Any](seconds=self.clock.spent - began, about=about) | found
            write_json(folder / RESULT, found)
        intervals = Evaluation.from_dict(read_json(folder / "metrics.json")).intervals
        self.entries.append(Entry(name, found["about"], is_network, intervals, found["seconds"]))
        done = "done before" if is_done else f"{found['seconds']:.0f} s"
        self._say(f"{number}: {self.metric} {intervals[self.metric]} ({done}), {in_words(self.clock.left)} left")
        self._board(None, None)

    def _prior(self, folder: Path) -> dict[str, Any]:
        return self._reference(folder, class_shares(self.cases, self.val))

    def _boosting(self, folder: Path) -> str | dict[str, Any]:
        table = self.networks.columns.table
        if table is None:
            return "skipped: there are no columns to read"
        seconds = self._timed(lambda: self._boosted(table, 5))
        if (cost := 20 * seconds) > self.clock.left:
            return f"skipped: it takes about {in_words(cost)}, and {in_words(self.clock.left)} are left"
        names = ", ".join(table.names)
        return self._reference(folder, self._boosted(table, 100)) | {"about": f"scikit-learn's, of {names}"}

    def _boosted(self, table: TableColumns, iterations: int) -> NDArray[np.float64]:
        return gradient_boosting(self.cases, self.val, table, seed=self.base.seed, iterations=iterations)

    def _timed(self, do: Callable[[], Any]) -> float:
        began = self.clock.spent
        do()
        return self.clock.spent - began

    def _reference(self, folder: Path, probabilities: NDArray[np.float64]) -> dict[str, Any]:
        """Measure probabilities (N, C) of the validation rows."""
        names, frame = self.cases.labels, self.val.frame
        labels = np.array([names.index(label) for label in frame["label"]])
        groups = group_codes(frame["group"].tolist(), len(frame))
        intervals = metric_intervals(labels, probabilities, groups, **BOOTSTRAP)
        figures = {name: intervals[name].value for name in METRICS}
        folder.mkdir(parents=True, exist_ok=True)
        found = Evaluation(n=len(labels), figures=figures, classes=names, intervals=intervals, split="val")
        write_json(folder / "metrics.json", found.to_dict())
        return {}

    def _regression(self, folder: Path) -> str | dict[str, Any]:
        run = self.networks.frozen
        if run is None:
            return "skipped: no tower of the model starts from published weights that could stay as they are"
        step, batch = self._step(run), run.train.batch_size
        cost = FORWARD * step * (self.cases.splits["train"] + 3 * len(self.val)) / batch + self.pace.fixed
        if cost > self._budget():
            return f"skipped: it takes about {in_words(cost)}, and {in_words(self.clock.left)} are left"
        with logged(folder / LOG):
            predictor = settle(run, self.cases).predictor(self.cases)
            chosen = fit_head(predictor, self.cases, batch, lambda: self.clock.check(self.pace.fixed))
            calibrate(predictor, self.val, batch_size=batch)
            found = measure(predictor, self.val, output=folder, batch_size=batch)
            save(predictor, folder / "best", {**found.to_dict(), "split": "val"})
        return {"about": f"{self._encoder(predictor)}, frozen; {chosen}"}

    def _encoder(self, predictor: Predictor) -> str:
        config = predictor.network().config
        return str(config["image_encoder"] or config["text_encoder"])

    def _network(self, name: str, run: RunConfig, folder: Path) -> str | dict[str, Any]:
        rest = [other for other in self.networks.tuned if not (self.output / "steps" / other / RESULT).is_file()]
        share = self._budget() / max(1, len(rest) - rest.index(name))
        steps, val_steps = (count / run.train.batch_size for count in (self.cases.splits["train"], len(self.val)))
        epochs, foretold = begun_epochs(RunFolder(folder)), 0.0
        if epochs is None:
            foretold = self.pace.epoch(self._step(run), steps, val_steps)
            epochs = self.pace.epochs(foretold, share, run.train.epochs)
            if epochs < 1:
                left = in_words(max(share - self.pace.fixed, 0))
                return f"skipped: one epoch takes about {in_words(foretold)}, and {left} are left for it"
            self._say(f"  {epochs} epoch{'s' * (epochs > 1)} of about {in_words(foretold)}")
        settings = replace(run.train, epochs=epochs, head_epochs=min(run.train.head_epochs, epochs - 1), resume=True)
        run = replace(run, output=str(folder), train=settings)
        until = self.clock.left - share + self.pace.fixed
        limit = TimeLimit(self.clock, until, lambda line: self._say(f"  {line}"), self.metric)
        began = self.clock.spent
        with logged(folder / LOG):
            try:
                done = train(run, images_checked=self.is_sound, judged_on=("val",), callbacks=[limit])
            except FloatingPointError as error:
                return f"failed: {error}"
            print(done.summary())
        if foretold:
            seconds = sum(record["seconds"] for record in done.history)
            real = seconds * steps / done.history[-1]["step"]
            self.pace.learn(foretold, real, self.clock.spent - began - seconds)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "last", ignore_errors=True)
        what = "all modalities" if name == "fusion" else f"{name} alone"
        cut = ", stopped by the time" if done.history[-1]["step"] < epochs * steps else ""
        return {"about": f"{run.model.name}, {what}; epoch {done.best_epoch} of {len(done.history)}{cut}"}

    def _step(self, run: RunConfig) -> float:
        """Seconds of a training step of a network, measured once for each."""
        key = repr((run.model, run.train.freeze_encoders))
        if key not in self.measured:
            with logged(self.output / "steps" / LOG):
                self.measured[key] = seconds_of_step(run, self.cases)
        return self.measured[key]

    def _budget(self) -> float:
        """Seconds that are left for training: ensemble and test rows cost about as much as the ends of two runs."""
        return self.clock.left - 2 * self.pace.fixed

    def _members(self) -> list[str]:
        """Networks that make the ensemble: those that were fine-tuned, and logistic regression where that is one."""
        done = [entry.name for entry in self.entries if entry.is_network and entry.intervals is not None]
        tuned = [name for name in reversed(done) if name != "logistic_regression"]
        return tuned if len(tuned) > 1 else [*tuned, *(name for name in done if name not in tuned)]

    def _ensemble(self, folder: Path) -> str | dict[str, Any]:
        members = self._members()
        if len(members) < 2:
            return "skipped: it takes two networks"
        if self.pace.fixed > self.clock.left:
            return f"skipped: it takes about {in_words(self.pace.fixed)}, and {in_words(self.clock.left)} are left"
        with logged(folder / LOG):
            measure(self._opened(members), self.val, output=folder)
        return {"about": f"mean of {' and '.join(members)}", "members": members}

    def _opened(self, names: list[str]) -> Predictor:
        return Predictor.from_pretrained([self.output / "steps" / name / "best" for name in names])

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

    def _test(self, winner: str) -> Evaluation:
        """The winner on the test rows, looked at once."""
        folder = self.output / "steps" / winner / "test"
        if not (folder / "metrics.json").is_file():
            with logged(folder / LOG):
                measure(Predictor.from_pretrained(self.output / "best"), self.cases.select("test"), output=folder)
        found = read_json(folder / "metrics.json") | {"split": "test"}
        if winner == "ensemble":
            write_json(self.output / "best" / "metrics.json", found)
        else:
            save(Predictor.from_pretrained(self.output / "best"), self.output / "best", found)
        return Evaluation.from_dict(found)

    def _rank(self, entry: Entry) -> tuple[bool, float]:
        if entry.intervals is None or (value := entry.intervals[self.metric].value) is None:
            return True, 0.0
        return False, -value if METRICS[self.metric].higher_is_better else value

    def _board(self, winner: str | None, test: Evaluation | None) -> Leaderboard:
        entries = sorted(self.entries, key=self._rank)
        board = Leaderboard(self.output, entries, self.metric, len(self.val), winner, test, self.clock.spent)
        board.frame().to_csv(self.output / "leaderboard.csv", index=False)
        return board

    def _say(self, line: str) -> None:
        """A line on the screen, wherever a run prints to."""
        print(line, file=self.screen, flush=True)
