"""Early checks of the options of a command, before torch is imported."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mmfusion.artifacts.folder import read_config, resolve_members
from mmfusion.data.early import check_data
from mmfusion.experiments.config import ExperimentConfig, SweepConfig
from mmfusion.experiments.plan import base_run, finished_folders, plan_rows
from mmfusion.ladder.config import AutoConfig
from mmfusion.training.config import RunConfig
from mmfusion.training.early import check_run
from mmfusion.training.run_folder import RunFolder

#: commands that read rows without labels.
UNLABELLED = ("predict", "explain", "narrate", "embed")


def check(name: str, config: Any) -> None:
    """Check the options of a command as far as possible without a heavy library.

    Raises:
        FileNotFoundError: A model, the data or one of their files does not exist.
        FileExistsError: The run folder already contains a run.
        ValueError: Unknown part, column or split.
    """
    for run in _runs(config):
        check_run(run)
    if isinstance(config, ExperimentConfig) and config.runs:
        finished_folders(config)
    if isinstance(config, RunConfig):
        if not isinstance(config, AutoConfig):
            RunFolder(config.output).check(config)
        return
    for model in _models(config):
        for folder in resolve_members(model):
            read_config(folder)
    if getattr(config, "dataset", None) is not None and config.data is not None:
        drawn = name == "split" or (name == "audit" and config.split != "auto")
        dataset = config.dataset.without_split() if drawn else config.dataset
        subgroups = [column.partition(":")[0] for column in getattr(config, "subgroups", ())]
        split = config.split if name == "evaluate" else None
        what = {"require_labels": name not in UNLABELLED, "is_trained": bool(_models(config))}
        check_data(config.data, dataset, **what, split=split, columns=subgroups)


def _runs(config: Any) -> Iterable[RunConfig]:
    """The training runs that a command starts."""
    if isinstance(config, RunConfig):
        return [config]
    if isinstance(config, ExperimentConfig):
        if config.runs:
            return []
        runs = [row.config for row in plan_rows(config)]
        # the folds are assigned to splits later
        return [replace(run, dataset=run.dataset.without_split()) for run in runs] if config.splits_anew else runs
    return [base_run(config)] if isinstance(config, SweepConfig) else []


def _models(config: Any) -> list[str]:
    """Names of the trained models in a command's options."""
    names = [getattr(config, "model", None), *(getattr(config, "models", None) or ())]
    return [each for name in names if name for each in ([name] if isinstance(name, str) else name)]
