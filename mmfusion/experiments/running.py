"""Single runs of an experiment or a search: their rows and results."""

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, check_images
from mmfusion.experiments.cost import cost_of
from mmfusion.files import read_json, read_yaml, write_json, write_yaml
from mmfusion.settings import flat
from mmfusion.task import DEFAULT, task_named
from mmfusion.training.config import RunConfig
from mmfusion.training.run import train
from mmfusion.training.run_folder import RunFolder

#: Result file of a run, which also marks it as finished.
RESULT = "result.json"
#: Log of a run.
LOG = "train.log"


def settled(cases: CaseTable, dataset: DatasetConfig, output: Path) -> tuple[CaseTable, bool]:
    """The rows of an experiment or a search, and whether all images are valid, so that runs need not check them.

    Their fingerprint is stored in the folder, so that runs on different data are never mixed.

    Raises:
        ValueError: There are bad rows, or the folder has runs on other rows, labels, texts or splits.
    """
    check_images(cases)
    sound = all(problem.warning for problem in cases.problems)
    cases = cases.resolve(dataset.on_bad_row)
    note_data(cases, output)
    return cases, sound


def note_data(cases: CaseTable, output: Path) -> None:
    """Store the fingerprint of the rows; ValueError if the folder has runs on others."""
    path = output / "data.json"
    told = {"fingerprint": cases.fingerprint(), "rows": len(cases)}
    before = read_json(path) if path.is_file() else told
    if before != told:
        raise ValueError(
            f"{output} has runs on other data ({before['rows']:,} rows then, {told['rows']:,} now, or other labels, "
            "texts or splits); restore them, or choose another --output."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, told)


def begin(path: Path, told: dict[str, Any], free: Collection[str] = ()) -> None:
    """Store the settings of an experiment, or reject a folder with another experiment.

    Args:
        path: File with the settings.
        told: Its settings.
        free: Dotted settings that may change when it resumes.

    Raises:
        ValueError: The file has other settings.
    """
    if path.exists():
        before, now = flat(read_yaml(path)), flat(told)
        differ = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
        if changed := ", ".join(sorted(differ.difference(free))):
            raise ValueError(
                f"{path.parent} has another {path.stem} (different: {changed}); restore the settings, or choose "
                "another --output."
            )
    write_yaml(path, told)


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append printed output to a file; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def run_once(config: RunConfig, *, images_checked: bool, keep_model: bool, cost: bool) -> dict[str, Any]:
    """Train a run, or return the result of a finished one.

    Output goes to ``train.log`` in its folder; checkpoints and, unless ``keep_model``, models are deleted.

    Args:
        config: The run.
        images_checked: See :func:`~mmfusion.training.train`.
        keep_model: Keep the best model.
        cost: Also measure the cost of the model.

    Returns:
        ``figures`` (metrics of the test rows), ``val`` (of the best epoch), ``seconds`` (of training), ``best_epoch``,
        ``epochs`` and, if requested, the model's cost; or ``error`` and ``seconds``.

    Raises:
        ValueError: The folder has a run with another configuration.
    """
    folder = Path(config.output)
    config = replace(config, train=replace(config.train, resume=True))
    RunFolder(folder).check(config)
    if (folder / RESULT).is_file():
        return read_json(folder / RESULT)
    began = time.monotonic()
    result: dict[str, Any]
    with logged(folder / LOG):
        try:
            done = train(config, images_checked=images_checked)
            print(done.summary())
        except FloatingPointError as error:
            result = {"error": str(error), "seconds": time.monotonic() - began}
        else:
            if done.test is None:
                raise ValueError(f"{config.data} has no test rows, which an experiment needs.")
            result = {
                "val": done.val,
                "figures": {name: done.test[name] for name in task_named(done.test.get("task") or DEFAULT).metrics},
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
