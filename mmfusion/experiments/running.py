"""Single runs of an experiment or a search: the rows that they are of, and what each leaves behind."""

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

#: what a run leaves behind for the experiment; its presence says that the run is finished.
RESULT = "result.json"
#: what a run printed.
LOG = "train.log"


def settled(cases: CaseTable, dataset: DatasetConfig, output: Path) -> tuple[CaseTable, bool]:
    """The rows that an experiment or a search is of, and whether all images are sound, so that no run need check them.

    What data they are is noted in the folder: runs on others never stand beside those that are finished.

    Raises:
        ValueError: bad rows, or the folder has runs on other rows, labels, texts or splits.
    """
    check_images(cases)
    sound = all(problem.warning for problem in cases.problems)
    cases = cases.resolve(dataset.on_bad_row)
    note_data(cases, output)
    return cases, sound


def note_data(cases: CaseTable, output: Path) -> None:
    """Write which rows the runs below a folder are of; ValueError where it has runs on others."""
    path = output / "data.json"
    told = {"fingerprint": cases.fingerprint(), "rows": len(cases)}
    before = read_json(path) if path.is_file() else told
    if before != told:
        raise ValueError(
            f"{output} holds runs on other data ({before['rows']:,} rows then, {told['rows']:,} now, or other labels, "
            "texts or splits); restore them, or choose another --output."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, told)


def begin(path: Path, told: dict[str, Any], free: Collection[str] = ()) -> None:
    """Write what an experiment is told, or refuse a folder where another one lies.

    Args:
        path: The file that tells it.
        told: Its settings.
        free: Those that may change when it goes on, dotted.

    Raises:
        ValueError: The file tells another experiment.
    """
    if path.exists():
        before, now = flat(read_yaml(path)), flat(told)
        differ = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
        if changed := ", ".join(sorted(differ.difference(free))):
            raise ValueError(
                f"{path.parent} holds another {path.stem} ({changed} differ); set them back, or choose another "
                "--output."
            )
    write_yaml(path, told)


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Let what is printed go to the end of a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


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
                raise ValueError(f"{config.data} has no test rows, on which a study measures.")
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
