"""Which runs an experiment is made of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from mmfusion.experiments.config import ExperimentConfig, SweepConfig
from mmfusion.settings import with_settings
from mmfusion.training.config import RunConfig

#: what is left out of the base for the two unimodal rows.
BASELINES = {"image alone": {"model.text_encoder": "none"}, "text alone": {"model.image_encoder": "none"}}


@dataclass(frozen=True)
class Row:
    """One line of an experiment's tables: a configuration (but for seed, fold and folder), trained with each of those.

    Its kind is ``base``, ``baseline`` (one modality alone) or ``variant``.
    """

    name: str
    kind: str
    config: RunConfig


@dataclass(frozen=True)
class Run:
    """One training of the row of that name, tested on ``fold`` (or None); ``first`` is the first of its row."""

    row: str
    seed: int
    fold: Any
    config: RunConfig
    first: bool

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def base_run(config: ExperimentConfig | SweepConfig) -> RunConfig:
    """The run that an experiment or a search starts from.

    Raises:
        ValueError: a setting that a run does not have.
    """
    base = with_settings(config.run, config.base)
    return base if config.data is None else replace(base, data=config.data)


def plan_rows(experiment: ExperimentConfig) -> list[Row]:
    """The rows of an experiment: the base first, then the baselines, then the variants in the order of the file.

    A value of ``vary`` that is the base's own is the base, and takes its name from there.

    Raises:
        ValueError: nothing varies, a setting that a run does not have, two rows of one name, or the base has one
            modality only and baselines are asked for.
    """
    base = base_run(experiment)
    own: list[str] = []
    variants: list[Row] = []
    for setting, values in experiment.vary.items():
        for value in values:
            name = f"{setting.rpartition('.')[2]}={f'{value:g}' if isinstance(value, float) else value}"
            config = with_settings(base, {setting: value})
            if config == base:
                own.append(name)
            else:
                variants.append(Row(name, "variant", config))
    variants += [Row(name, "variant", with_settings(base, settings)) for name, settings in experiment.rows.items()]
    if not variants:
        raise ValueError("The study has no row beside its base; name what varies in 'vary' or 'rows'.")
    baselines: list[Row] = []
    if experiment.baselines:
        if "none" in (base.model.text_encoder, base.model.image_encoder):
            raise ValueError("The base run reads one modality only, and has no baselines; set baselines: false.")
        baselines = [Row(name, "baseline", _unimodal(base, gone)) for name, gone in BASELINES.items()]
    rows = [Row(", ".join(own) or "base", "base", base), *baselines, *variants]
    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two rows of the study are called {', '.join(map(repr, twice))}; give each its own name.")
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(_slug(name), name)
        if other != name or not _slug(name):
            raise ValueError(
                f"The rows {other!r} and {name!r} of the study would share a folder, whose name has plain letters and "
                "digits alone; rename one."
            )
    return rows


def _unimodal(base: RunConfig, gone: dict[str, Any]) -> RunConfig:
    """The base without one modality: what belongs to it, or joins both, is left out with it."""
    side = "text" if "model.text_encoder" in gone else "image"
    parts = ["fusion", "fusion_args", "dim", "modality_dropout"]
    parts += ["text_args"] if side == "text" else ["image_tower", "image_args", "stem", "aggregator", "aggregator_args"]
    config = with_settings(base, gone | {f"model.{part}": None for part in parts})
    if base.train.loss == "mp":
        # the disagreement of two modalities; what is left of it with one is cross-entropy
        config = with_settings(config, {"train.loss": "ce", "train.loss_args": {}})
    if side == "image":
        config = with_settings(config, {"train.feature_views": 0, "processor.augment": "none"})
    return config


def plan_runs(experiment: ExperimentConfig, rows: list[Row], folds: list[Any]) -> Iterator[Run]:
    """Every row with every seed (and fold), seeds outermost: an experiment that is stopped has whole seeds.

    Args:
        experiment: the experiment.
        rows: its rows.
        folds: of the data set, in order; ``[None]`` where the split is fixed.
    """
    for seed, row, (i, fold) in product(experiment.seeds, rows, enumerate(folds)):
        config, folder = (
            replace(row.config, seed=seed),
            Path(experiment.output, "runs", _slug(row.name), f"seed-{seed}"),
        )
        if fold is not None:
            split = {"test": [fold], "val": [folds[(i + 1) % len(folds)]]}
            config, folder = with_settings(config, {"dataset.folds": split}), folder / f"fold-{_slug(str(fold))}"
        first = seed == experiment.seeds[0] and i == 0
        yield Run(row.name, seed, fold, replace(config, output=str(folder)), first)


def _slug(name: str) -> str:
    return re.sub("[^A-Za-z0-9._=-]+", "-", name).strip("-")
