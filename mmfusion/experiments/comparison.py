"""``compare(experiment)``: train every row with every seed, and test the differences."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmfusion.data import CaseTable, read_cases
from mmfusion.data.split_file import write_split_table
from mmfusion.decisions import check_classes
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import RowResult, RunPredictions, compare_rows
from mmfusion.experiments.finished import compare_finished
from mmfusion.experiments.plan import Row, Run, plan_rows, plan_runs
from mmfusion.experiments.predictions import finished_task, read_predictions
from mmfusion.experiments.references import reference_once
from mmfusion.experiments.running import RESULT, run_once, settled
from mmfusion.experiments.tables import write_results
from mmfusion.files import sole_writer
from mmfusion.names import did_you_mean
from mmfusion.progress import then_left
from mmfusion.registry import load_plugins
from mmfusion.settings import with_settings
from mmfusion.task import Task, task_named
from mmfusion.training import RunConfig
from mmfusion.training.build import with_task
from mmfusion.training.check import check_settings
from mmfusion.training.contents import check_contents

#: Maximum number of values of a column for ``leave_out``; more look like patients.
MOST_SITES = 20


@dataclass
class Comparison:
    """Results of an experiment: one per row, the base first, and the ``text`` of ``results.md``.

    With ``leave_out``, ``sites`` has the results on each left-out part; the others are over all parts together.
    """

    config: ExperimentConfig
    results: list[RowResult]
    text: str
    sites: dict[str, list[RowResult]] = field(default_factory=dict)

    def summary(self) -> str:
        """The tables and sentences, and their location."""
        tables = "results.md, results.csv" if self.config.runs else "results.md, results.csv, runs.csv"
        return f"\n{self.text}\n{tables} and differences.png are in {self.config.output}"


@sole_writer
def compare(experiment: ExperimentConfig) -> Comparison:
    """Run or resume an experiment and write its tables; or compare finished runs (``experiment.runs``).

    All rows are trained on the same split with the same seeds. Failed runs (such as a diverging learning rate) are
    listed in the tables and do not stop the others. ``results.md``, ``results.csv``, ``runs.csv`` and
    ``differences.png`` are written to ``experiment.output``.

    Raises:
        ValueError: A setting does not exist, or the data do not allow it.
        FileNotFoundError: The data, or the predictions of a finished run, are missing.
    """
    load_plugins(experiment.run.plugins)
    if experiment.runs:
        experiment = replace(experiment, metric=experiment.metric or finished_task(experiment).metric)
        _check(experiment, finished_task(experiment))
        results = compare_finished(experiment)
        return Comparison(experiment, results, write_results(experiment, results, Path(experiment.output)))
    rows = plan_rows(experiment)
    base = with_task(rows[0].config)
    experiment = replace(experiment, metric=experiment.metric or task_named(base.dataset.task).metric)
    _check(experiment, task_named(base.dataset.task))
    output = Path(experiment.output)
    output.mkdir(parents=True, exist_ok=True)
    dataset = rows[0].config.dataset
    cases = read_cases(rows[0].config.data, dataset.without_split() if experiment.splits_anew else dataset)
    for row in rows:
        check_contents(row.config, cases)
    print(f"checking the images of {cases.source}")
    cases, sound = settled(cases, dataset, output)
    check_classes(experiment.alarm, cases.labels)
    folds = _folds(experiment, cases, rows[0].config, output)
    fixed = list(folds) == [None]
    rows = [_with_split(row, cases, output) for row in rows] if fixed and not cases.splits else rows
    for row in rows:
        check_settings(row.config)
    runs = list(plan_runs(experiment, rows, folds))
    of_folds = "" if fixed else f" x {len(folds)} folds"
    print(f"{len(rows)} rows x {len(experiment.seeds)} seeds{of_folds} in {output}, now {runs[0]}", flush=True)
    finished: dict[tuple[str, int, Any], dict[str, Any]] = {}
    began, at_first = time.monotonic(), _unfinished(runs)  # earlier runs are excluded from the time estimate
    for i, (run, result) in enumerate(_results(experiment, runs, images_checked=sound), start=1):
        finished[run.row, run.seed, run.fold] = result
        told = result.get("error")
        if told is None:  # the rows of a fold may have a single class and no AUROC
            figure = result["figures"][experiment.metric]
            told = f"{experiment.metric} {'undefined' if figure is None else f'{figure:.4f}'}"
        todo = _unfinished(runs)
        then = then_left(time.monotonic() - began, at_first - todo, todo)
        then += f", now {runs[i]}" if i < len(runs) and experiment.jobs == 1 else ""
        print(f"[{i:>{len(str(len(runs)))}}/{len(runs)}] {run}: {told} ({result['seconds']:.0f} s){then}", flush=True)
    groups = dict(zip(cases.frame["id"], cases.frame["group"], strict=True))

    counted: dict[Path, set[str]] = {}
    if (column := experiment.leave_out) is not None:
        ids = cases.frame.groupby(column)["id"].agg(set)
        counted = {Path(run.config.output): ids[run.fold] for run in runs}

    def measured(chosen: list[Run]) -> list[RowResult]:
        predictions = {row.name: _predictions(row, chosen, finished, counted) for row in rows}
        return compare_rows(experiment, rows, predictions, groups)

    results = measured(runs)
    for each in results:
        each.runs = {key[1:]: result for key, result in finished.items() if key[0] == each.row.name}
    left_out = folds if column is not None else ()
    sites = {site: measured([run for run in runs if run.fold == site]) for site in left_out}
    return Comparison(experiment, results, write_results(experiment, results, output, sites), sites)


def _check(experiment: ExperimentConfig, task: Task) -> None:
    if experiment.metric not in task.metrics:
        raise ValueError(f"metric must be one of {', '.join(task.metrics)}; got {experiment.metric!r}.")
    if experiment.alarm:
        task.need_one_class("alarm")
    if not experiment.seeds or len(set(experiment.seeds)) < len(experiment.seeds):
        raise ValueError(f"seeds must be distinct numbers, at least one; got {experiment.seeds}.")
    if experiment.jobs < 1 or experiment.replicates < 1 or not 0 < experiment.level < 1:
        raise ValueError(
            f"jobs and replicates must be at least 1 and level between 0 and 1; got {experiment.jobs}, "
            f"{experiment.replicates} and {experiment.level}."
        )
    if not all(0 < threshold < 1 for threshold in experiment.benefit_thresholds):
        raise ValueError(f"benefit_thresholds must be between 0 and 1; got {experiment.benefit_thresholds}.")


def _folds(
    experiment: ExperimentConfig, cases: CaseTable, config: RunConfig, output: Path
) -> dict[Any, dict[str, Any]]:
    """Part to test on -> split settings of a run; ``{None: {}}`` for a fixed split."""
    if experiment.leave_out is not None:
        return _sites(experiment.leave_out, cases, config, output / "splits")
    if not experiment.cross_validate:
        return {None: {}}
    if (column := config.dataset.fold_column) not in cases.frame:
        raise ValueError(
            f"cross_validate needs dataset.fold_column, the column with the fold of each row; got {column!r}."
        )
    folds = sorted(set(cases.frame[column].dropna()), key=lambda fold: (len(fold), fold))
    if len(folds) < 3:
        raise ValueError(f"cross_validate needs at least three folds (test, validation, training); got {folds}.")
    following = [*folds[1:], folds[0]]
    return {fold: {"dataset.folds": {"test": [fold], "val": [val]}} for fold, val in zip(folds, following, strict=True)}


def _sites(column: str, cases: CaseTable, config: RunConfig, folder: Path) -> dict[Any, dict[str, Any]]:
    """Each value of a column -> a split with its rows as test rows and validation rows drawn from the others.

    Groups are never divided between training and test: all rows of a patient of two hospitals are test rows of both,
    but only those of the hospital in question are evaluated.
    """
    if column not in cases.frame:
        raise ValueError(f"leave_out: there is no column {column!r}; {did_you_mean(column, list(cases.frame))}")
    values = cases.frame[column]
    sites = sorted(set(values.dropna()))
    if not 2 <= len(sites) <= MOST_SITES:
        shown = ", ".join(map(repr, sites[:3]))
        raise ValueError(f"leave_out: {column!r} has {len(sites)} values ({shown}); 2 to {MOST_SITES} are supported.")
    if unknown := int(values.isna().sum()):
        print(f"leave_out: {unknown} of {len(values)} rows have no {column}; they are never test rows")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = replace(config.dataset, test_fraction=0.0)
    found: dict[Any, dict[str, Any]] = {}
    for i, site in enumerate(sites):
        path, held_out = folder / f"{i}.csv", (values == site).to_numpy()
        if not path.exists():
            groups = cases.frame["group"]
            held_out = held_out | groups.isin(groups[held_out].dropna()).to_numpy()
            rest = replace(cases, frame=cases.frame[~held_out]).split_or_draw(dataset, config.seed).frame
            tested = cases.frame[held_out].assign(split="test")
            write_split_table(replace(cases, frame=pd.concat([rest, tested])), path)
        settings = {"dataset.split_table": str(path.resolve()), "dataset.split_column": None}
        found[site] = {**settings, "dataset.fold_column": None, "dataset.folds": {}}
    return found


def _with_split(row: Row, cases: CaseTable, output: Path) -> Row:
    """The row on the split of the base's seed, stored in the experiment's folder and shared by all runs."""
    path = output / "split.csv"
    if not path.exists():
        write_split_table(cases.split_or_draw(row.config.dataset, row.config.seed), path)
    return replace(row, config=with_settings(row.config, {"dataset.split_table": str(path.resolve())}))


def _results(
    experiment: ExperimentConfig, runs: list[Run], *, images_checked: bool
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with its result, in order of completion."""

    def options(run: Run) -> dict[str, Any]:
        return {"images_checked": images_checked, "keep_model": experiment.keep_models, "cost": run.first}

    if experiment.jobs == 1:
        for run in runs:
            yield run, _finished(run, **options(run))
        return
    # the first run computes features shared by all rows, so that parallel runs do not repeat it
    alone = 1 if runs[0].config.train.feature_cache is not None else 0
    threads = max(1, (os.cpu_count() or 1) // experiment.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(experiment.jobs, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            for run in runs[:alone]:
                yield run, pool.submit(_finished, run, **options(run)).result()
            pending = {pool.submit(_finished, run, **options(run)): run for run in runs[alone:]}
            for future in as_completed(pending):
                yield pending[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _unfinished(runs: list[Run]) -> int:
    return sum(not Path(run.config.output, RESULT).is_file() for run in runs)


def _finished(run: Run, **options: Any) -> dict[str, Any]:
    if run.reference is not None:
        return reference_once(run.reference, run.config, images_checked=options["images_checked"])
    return run_once(run.config, **options)


def _predictions(
    row: Row, runs: list[Run], finished: dict[tuple[str, int, Any], dict[str, Any]], counted: Mapping[Path, set[str]]
) -> dict[int, RunPredictions]:
    """Seed -> test predictions of a row over all folds; seeds with a failed run are omitted."""
    folders: dict[int, list[Path]] = {}
    failed = {seed for (name, seed, _), result in finished.items() if name == row.name and "error" in result}
    for run in runs:
        if run.row == row.name and run.seed not in failed:
            folders.setdefault(run.seed, []).append(Path(run.config.output))
    return {seed: read_predictions(parts, counted)[0] for seed, parts in folders.items()}
