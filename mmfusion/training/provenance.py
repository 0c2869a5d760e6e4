"""Provenance of a trained model: the entries ``training`` and ``card`` of its ``config.json``."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from mmfusion._version import __version__
from mmfusion.artifacts.folder import is_saved, read_config, resolve_artifact
from mmfusion.artifacts.locating import portable_name
from mmfusion.data import CaseTable
from mmfusion.data.config import handed_on
from mmfusion.data.table_columns import TableColumns
from mmfusion.training.columns import with_column_names
from mmfusion.training.config import RunConfig
from mmfusion.training.weights import Start

PACKAGES = ("torch", "timm", "transformers", "accelerate")


def provenance_of(
    config: RunConfig, cases: CaseTable, starts: Sequence[Start], processes: int, table: TableColumns | None = None
) -> dict[str, Any]:
    """Data (rows of all splits), seed, initial weights, loss, number of processes, and versions of a run.

    Selected columns are listed, so that a saved model does not search for others. Folders, tables, groups and splits
    are not passed on; they are in the run's ``config.yaml``.
    """
    packages = {name: version(name) for name in PACKAGES}
    return {
        "data_fingerprint": cases.fingerprint(),
        "rows": cases.splits,
        "labels": cases.labels,
        "seed": config.seed,
        "processes": processes,
        "dataset": handed_on(asdict(with_column_names(config.dataset, table))),
        "towers": {start.tower: start.words for start in starts},
        "loss": {"name": config.train.loss, **config.train.loss_args},
        "versions": {"mmfusion": __version__, "python": platform.python_version(), **packages},
    }


def card_of(config: RunConfig) -> dict[str, Any]:
    """Facts for the model card, and the initial weights of the run, whose license applies to derived weights."""
    card = asdict(config.card)
    if not is_saved(config.model.name):
        return card
    started = read_config(resolve_artifact(config.model.name))
    about = started.get("card") or {}
    origin = {"model": portable_name(config.model.name), "weights_sha256": started.get("weights_sha256")}
    origin |= {name: about.get(name) for name in ("dataset", "license")}
    return card | {"license": card["license"] or about.get("license"), "started_from": origin}
