"""``compare(experiment)``: train every row with every seed, and say what the differences are worth."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmfusion.data import CaseTable, read_cases
from mmfusion.data.split_file import write_split_table
from mmfusion.evaluation.metrics import METRICS
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import RowResult, RunPredictions, compare_rows
from mmfusion.experiments.finished import compare_finished
from mmfusion.experiments.plan import Row, Run, plan_rows, plan_runs
from mmfusion.experiments.predictions import read_predictions
from mmfusion.experiments.references import reference_once
from mmfusion.experiments.running import run_once, settled
from mmfusion.experiments.tables import write_results
from mmfusion.files import sole_writer
from mmfusion.progress import in_words
from mmfusion.registry import load_plugins
from mmfusion.settings import with_settings
from mmfusion.training import RunConfig
from mmfusion.training.check import check_settings
from mmfusion.training.contents import check_contents


@dataclass
class Comparison:
    """What an experiment gave: one result per row, the base first, and the ``text`` of ``results.md``."""

    config: ExperimentConfig
    results: list[RowResult]
    text: str

    def summary(self) -> str:
        """The tables and sentences, and where they are."""
        tables = "results.md, results.csv" if self.config.runs else "results.md, results.csv, runs.csv"
        return f"\n{self.text}\n{tables} and differences.png are in {self.config.output}"


@sole_writer
def compare(experiment: ExperimentConfig) -> Comparison:
    """Run an experiment, or go on with one, and write its tables; or compare finished runs (``experiment.runs``).

    All rows are trained on the same split with the same seeds. A run that fails (a learning rate that diverges) is told
    in the tables and stops no other. ``results.md``, ``results.csv``, ``runs.csv`` and ``differences.png`` are left in
    ``experiment.output``.

    Raises:
        ValueError: a setting that does not exist, or that the data do not allow.
        FileNotFoundError: the data, or the predictions of a finished run, are missing.
    """
    load_plugins(experiment.run.plugins)
    _check(experiment)
    if experiment.runs:
        results = compare_finished(experiment)
        return Comparison(experiment, results, write_results(experiment, results, Path(experiment.output)))
    rows = plan_rows(experiment)
    output = Path(experiment.output)
    output.mkdir(parents=True, exist_ok=True)
    dataset = rows[0].config.dataset
    cases = read_cases(rows[0].config.data, dataset if not experiment.cross_validate else dataset.without_split())
    for row in rows:
        check_contents(row.config, cases)
    print(f"checking the images of {cases.source}")
    cases, sound = settled(cases, dataset, output)
    folds = _folds(experiment, cases, rows[0].config)
    rows = [_with_split(row, cases, output) for row in rows] if folds == [None] and not cases.splits else rows
    for row in rows:
        check_settings(row.config)
    runs = list(plan_runs(experiment, rows, folds))
    of_folds = "" if folds == [None] else f" x {len(folds)} folds"
    print(f"{len(rows)} rows x {len(experiment.seeds)} seeds{of_folds} in {output}, now {runs[0]}", flush=True)
    finished: dict[tuple[str, int, Any], dict[str, Any]] = {}
    began = time.monotonic()
    for i, (run, result) in enumerate(_results(experiment, runs, images_checked=sound), start=1):
        finished[run.row, run.seed, run.fold] = result
        told = result.get("error")
        if told is None:  # the rows of a fold may be of one class, and have no AUROC
            figure = result["figures"][experiment.metric]
            told = f"{experiment.metric} {'undefined' if figure is None else f'{figure:.4f}'}"
        left = (time.monotonic() - began) / i * (len(runs) - i)
        then = f"; about {in_words(left)} left" if i < len(runs) else ""
        then += f", now {runs[i]}" if i < len(runs) and experiment.jobs == 1 else ""
        print(f"[{i:>{len(str(len(runs)))}}/{len(runs)}] {run}: {told} ({result['seconds']:.0f} s){then}", flush=True)
    predictions = {row.name: _predictions(row, runs, finished) for row in rows}
    groups = dict(zip(cases.frame["id"], cases.frame["group"], strict=True))
    results = compare_rows(experiment, rows, predictions, groups)
    for measured in results:
        measured.runs = {key[1:]: result for key, result in finished.items() if key[0] == measured.row.name}
    return Comparison(experiment, results, write_results(experiment, results, output))


def _check(experiment: ExperimentConfig) -> None:
    if experiment.metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {experiment.metric!r}.")
    if not experiment.seeds or len(set(experiment.seeds)) < len(experiment.seeds):
        raise ValueError(f"seeds must be different numbers, at least one; got {experiment.seeds}.")
    if experiment.jobs < 1 or experiment.replicates < 1 or not 0 < experiment.level < 1:
        raise ValueError(
            f"jobs and replicates are at least 1 and level lies between 0 and 1; got {experiment.jobs}, "
            f"{experiment.replicates} and {experiment.level}."
        )


def _folds(experiment: ExperimentConfig, cases: CaseTable, config: RunConfig) -> list[Any]:
    """The folds to test on in turn; [None] where the split is fixed."""
    if not experiment.cross_validate:
        return [None]
    if (column := config.dataset.fold_column) not in cases.frame:
        raise ValueError(
            f"cross_validate needs dataset.fold_column, the column with the fold of each row; got {column!r}."
        )
    folds = sorted(set(cases.frame[column].dropna()), key=lambda fold: (len(fold), fold))
    if len(folds) < 3:
        raise ValueError(f"cross_validate needs three folds at least (test, validation, training); got {folds}.")
    return folds


def _with_split(row: Row, cases: CaseTable, output: Path) -> Row:
    """The row on the split that the base's seed draws, kept in the experiment's folder, whatever the seed of a run."""
    path = output / "split.csv"
    if not path.exists():
        write_split_table(cases.split_or_draw(row.config.dataset, row.config.seed), path)
    return replace(row, config=with_settings(row.config, {"dataset.split_table": str(path.resolve())}))


def _results(
    experiment: ExperimentConfig, runs: list[Run], *, images_checked: bool
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with what came out of it, as they end."""

    def options(run: Run) -> dict[str, Any]:
        return {"images_checked": images_checked, "keep_model": experiment.keep_models, "cost": run.first}

    if experiment.jobs == 1:
        for run in runs:
            yield run, _finished(run, **options(run))
        return
    # the features that all rows share are computed by the first run, and not by each of those that start together
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


def _finished(run: Run, **options: Any) -> dict[str, Any]:
    if run.reference is not None:
        return reference_once(run.reference, run.config, images_checked=options["images_checked"])
    return run_once(run.config, **options)


def _predictions(
    row: Row, runs: list[Run], finished: dict[tuple[str, int, Any], dict[str, Any]]
) -> dict[int, RunPredictions]:
    """Seed -> test predictions of a row, all folds together; seeds in which a run failed are left out."""
    folders: dict[int, list[Path]] = {}
    failed = {seed for (name, seed, _), result in finished.items() if name == row.name and "error" in result}
    for run in runs:
        if run.row == row.name and run.seed not in failed:
            folders.setdefault(run.seed, []).append(Path(run.config.output))
    return {seed: read_predictions(parts)[0] for seed, parts in folders.items()}
