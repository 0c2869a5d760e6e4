"""``compare(study)``: train every row with every seed, and say what the differences are worth."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.data.split_table import write_split_table
from mmfusion.evaluation.metrics import HEADLINE
from mmfusion.experiments.config import StudyConfig
from mmfusion.experiments.cost import cost_of
from mmfusion.experiments.differences import Predictions, RowResult, compare_rows
from mmfusion.experiments.plan import Row, Run, plan_rows, plan_runs
from mmfusion.experiments.tables import write_results
from mmfusion.files import write_json
from mmfusion.settings import with_settings
from mmfusion.training import RunConfig
from mmfusion.training.check import check_settings
from mmfusion.training.run import train
from mmfusion.training.run_folder import RunFolder

#: what a run leaves behind for the study; its presence says that the run is finished.
RESULT = "result.json"


def compare(study: StudyConfig) -> list[RowResult]:
    """Run a study, or go on with one, and write its tables.

    All rows are trained on the same split with the same seeds. A run that fails (a learning rate that diverges) is told
    in the tables and stops no other.

    Args:
        study: the study.

    Returns:
        One result per row, the base first. Beside them lie ``results.md``, ``results.csv``, ``runs.csv`` and
        ``differences.png`` in ``study.output``.

    Raises:
        ValueError: a setting that does not exist, or that the data do not allow.
        FileNotFoundError: the data are missing.
    """
    _check(study)
    rows = plan_rows(study)
    output = Path(study.output)
    output.mkdir(parents=True, exist_ok=True)
    dataset = rows[0].config.dataset
    cases = read_cases(rows[0].config.data, dataset if not study.cross_validate else dataset.without_split())
    print(f"checking the images of {cases.source}")
    cases, sound = settled(cases, dataset, output)
    folds = _folds(study, cases, rows[0].config)
    rows = [_with_split(row, cases, output) for row in rows] if folds == [None] and not cases.splits else rows
    for row in rows:
        check_settings(row.config)
    runs = list(plan_runs(study, rows, folds))
    print(
        f"{len(rows)} rows x {len(study.seeds)} seeds{'' if folds == [None] else f' x {len(folds)} folds'} in {output}"
    )
    finished: dict[tuple[str, int, Any], dict[str, Any]] = {}
    for i, (run, result) in enumerate(_results(study, runs, images_checked=sound), start=1):
        finished[run.row, run.seed, run.fold] = result
        told = result.get("error") or f"{study.metric} {_told(result['figures'][study.metric])}"
        print(f"[{i:>{len(str(len(runs)))}}/{len(runs)}] {run}: {told} ({result['seconds']:.0f} s)", flush=True)
    predictions = {row.name: _predictions(row, runs, finished) for row in rows}
    groups = dict(zip(cases.frame["id"], cases.frame["group"], strict=True))
    results = compare_rows(study, rows, predictions, groups)
    for measured in results:
        measured.runs = {key[1:]: result for key, result in finished.items() if key[0] == measured.row.name}
    write_results(study, results, output)
    return results


def settled(cases: CaseTable, dataset: DatasetConfig, output: Path) -> tuple[CaseTable, bool]:
    """The rows that a study or a search is of, and whether all images are sound, so that no run need check them.

    What data they are is noted in the folder: runs on others never stand beside those that are finished.

    Raises:
        ValueError: bad rows, or the folder has runs on other rows, labels, texts or splits.
    """
    check_images(cases)
    sound = all(problem.warning for problem in cases.problems)
    cases = cases.resolve(dataset.on_bad_row)
    path = output / "data.json"
    told = {"fingerprint": cases.fingerprint(), "rows": len(cases)}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else told
    if before != told:
        raise ValueError(
            f"{output} holds runs on other data ({before['rows']:,} rows then, {told['rows']:,} now, or other labels, "
            "texts or splits); restore them, or choose another --output."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, told)
    return cases, sound


def _told(figure: float | None) -> str:
    """A figure of one run; the rows of a fold may be of one class, and have no AUROC."""
    return "undefined" if figure is None else f"{figure:.4f}"


def _check(study: StudyConfig) -> None:
    if study.metric not in HEADLINE:
        raise ValueError(f"metric must be one of {', '.join(HEADLINE)}; got {study.metric!r}.")
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise ValueError(f"seeds must be different numbers, at least one; got {study.seeds}.")
    if study.jobs < 1 or study.replicates < 1 or not 0 < study.level < 1:
        raise ValueError(
            f"jobs and replicates are at least 1 and level lies between 0 and 1; got {study.jobs}, "
            f"{study.replicates} and {study.level}."
        )


def _folds(study: StudyConfig, cases: CaseTable, config: RunConfig) -> list[Any]:
    """The folds to test on in turn; [None] where the split is fixed."""
    if not study.cross_validate:
        return [None]
    column = config.dataset.fold_column
    if column is None or column not in cases.frame:
        raise ValueError(
            f"cross_validate needs dataset.fold_column, the column with the fold of each row; got {column!r}."
        )
    folds = sorted(set(cases.frame[column].dropna()), key=lambda fold: (len(fold), fold))
    if len(folds) < 3:
        raise ValueError(f"cross_validate needs three folds at least (test, validation, training); got {folds}.")
    return folds


def _with_split(row: Row, cases: CaseTable, output: Path) -> Row:
    """The row on the split that the base's seed draws, kept in the study's folder, whatever the seed of a run."""
    path = output / "split.csv"
    if not path.exists():
        write_split_table(cases.split_or_draw(row.config.dataset, row.config.seed), path)
    return replace(row, config=with_settings(row.config, {"dataset.split_table": str(path.resolve())}))


def _results(study: StudyConfig, runs: list[Run], *, images_checked: bool) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with what came out of it, as they end."""

    def options(run: Run) -> dict[str, Any]:
        return {"images_checked": images_checked, "keep_model": study.keep_models, "cost": run.first}

    if study.jobs == 1:
        for run in runs:
            yield run, run_once(run.config, **options(run))
        return
    # the features that all rows share are computed by the first run, and not by each of those that start together
    alone = 1 if runs[0].config.train.feature_cache is not None else 0
    threads = max(1, (os.cpu_count() or 1) // study.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(study.jobs, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            for run in runs[:alone]:
                yield run, pool.submit(run_once, run.config, **options(run)).result()
            pending = {pool.submit(run_once, run.config, **options(run)): run for run in runs[alone:]}
            for future in as_completed(pending):
                yield pending[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run_once(config: RunConfig, *, images_checked: bool, keep_model: bool, cost: bool) -> dict[str, Any]:
    """Train a run, or take what it left when it was finished.

    What it prints goes to ``train.log`` in its folder; its states, and unless ``keep_model`` its models, are removed.

    Args:
        config: the run.
        images_checked: see :func:`~mmfusion.training.train`.
        keep_model: keep the best model.
        cost: also measure what the model costs.

    Returns:
        ``figures`` (headline, test rows), ``val`` (of the best epoch), ``seconds`` (of training), ``best_epoch``,
        ``epochs`` and, if asked for, the model's cost; or ``error`` and ``seconds``.

    Raises:
        ValueError: the folder holds a run with another configuration.
    """
    folder = Path(config.output)
    config = replace(config, train=replace(config.train, resume=True))
    RunFolder(folder).check(config)
    if (folder / RESULT).is_file():
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    result: dict[str, Any]
    with (
        (folder / "train.log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            done = train(config, images_checked=images_checked)
            print(done.summary())
        except FloatingPointError as error:
            result = {"error": str(error), "seconds": time.monotonic() - began}
        else:
            if done.test is None:
                raise ValueError(f"{config.data} has no test rows, on which a study measures.")
            result = {
                "val": done.val,
                "figures": {name: done.test[name] for name in HEADLINE},
                "seconds": sum(record["seconds"] for record in done.history),
                "best_epoch": done.best_epoch,
                "epochs": len(done.history),
                **(cost_of(done.best, config) if cost else {}),
            }
    write_json(folder / RESULT, result)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if not keep_model:
        for name in ("best", "last"):
            shutil.rmtree(folder / name, ignore_errors=True)
    return result


def _predictions(
    row: Row, runs: list[Run], finished: dict[tuple[str, int, Any], dict[str, Any]]
) -> dict[int, Predictions]:
    """Seed -> test predictions of a row, all folds together; seeds in which a run failed are left out."""
    tables: dict[int, list[pd.DataFrame]] = {}
    failed = {seed for (name, seed, _), result in finished.items() if name == row.name and "error" in result}
    for run in runs:
        if run.row == row.name and run.seed not in failed:
            tables.setdefault(run.seed, []).append(_table(Path(run.config.output)))
    return {seed: _together(parts) for seed, parts in tables.items()}


def _table(folder: Path) -> pd.DataFrame:
    """The predictions of a run, as text: a class may be called None, and an id NA."""
    return pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)


def _together(parts: list[pd.DataFrame]) -> Predictions:
    table = pd.concat(parts, ignore_index=True)
    table = table[(table["true_label"] != "") & (table["error"] == "")]
    columns = [name for name in table.columns if name.startswith("p_")]
    names = [name.removeprefix("p_") for name in columns]
    labels = np.array([names.index(label) for label in table["true_label"]])
    probabilities: NDArray[np.float64] = table[columns].astype(np.float64).to_numpy()
    return Predictions(table["id"].tolist(), labels, probabilities, names)
