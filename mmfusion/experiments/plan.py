"""Which runs an experiment is made of."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from mmfusion.artifacts.locating import folder_of
from mmfusion.experiments.config import ExperimentConfig, SweepConfig
from mmfusion.settings import with_settings
from mmfusion.training.config import RunConfig

_IMAGE_PARTS = ("model.image_tower", "model.image_args", "model.stem", "model.aggregator", "model.aggregator_args")
_JOINING_PARTS = ("model.fusion", "model.fusion_args", "model.dim", "model.modality_dropout")
#: what a finished run leaves of each of its test rows.
PREDICTIONS = "predictions.csv"
#: modality -> the settings of a run without it.
WITHOUT: dict[str, dict[str, Any]] = {
    "image": {
        "model.image_encoder": "none",
        **dict.fromkeys(_IMAGE_PARTS),
        **{"train.feature_views": 0, "processor.augment": "none", "train.image_sizes": []},
        **dict.fromkeys(("train.freeze_stages", "train.mixup", "train.cutmix")),
    },
    "text": {"model.text_encoder": "none", "model.text_args": None},
    "columns": {
        **{"dataset.table_columns": None, "dataset.numeric_columns": [], "dataset.categorical_columns": []},
        **{"model.table_encoder": None, "model.table_args": None},
    },
}


@dataclass(frozen=True)
class Row:
    """One line of an experiment's tables: a configuration (but for seed, fold and folder), trained with each of those.

    Its kind is ``base``, ``baseline`` (one modality alone, or a ``reference`` in place of a network) or ``variant``.
    """

    name: str
    kind: str
    config: RunConfig
    reference: str | None = None


@dataclass(frozen=True)
class Run:
    """One training of the row of that name, tested on ``fold`` (or None); ``first`` is the first of its row.

    ``reference`` is fitted in place of a network where the row has one.
    """

    row: str
    seed: int
    fold: Any
    config: RunConfig
    first: bool
    reference: str | None = None

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def base_run(config: ExperimentConfig | SweepConfig) -> RunConfig:
    """The run that an experiment or a search starts from.

    Raises:
        ValueError: a setting that a run does not have, or no data.
    """
    base = with_settings(config.run, config.base)
    base = base if config.data is None else replace(base, data=config.data)
    if not base.data:
        raise ValueError("Missing run.data: neither the base run nor --data names a data set.")
    return base


def finished_folders(experiment: ExperimentConfig) -> dict[str, Path]:
    """The folders with the predictions of the finished runs, by the names that they were given.

    Raises:
        FileNotFoundError: a folder that is not there, or without predictions.
        ValueError: fewer than two runs, one run twice, or settings that only training reads.
    """
    plain = ExperimentConfig(run=RunConfig(data="", plugins=experiment.run.plugins))
    free = ("runs", "metric", "alarm", "benefit_thresholds", "output", "replicates", "level")
    differing = [f.name for f in fields(plain) if getattr(plain, f.name) != getattr(experiment, f.name)]
    if unused := [name for name in differing if name not in free]:
        raise ValueError(
            f"Finished runs are compared by their predictions alone, without {', '.join(unused)}; on other data, "
            "measure each with mmfusion evaluate --output FOLDER, and name these folders."
        )
    folders: dict[str, Path] = {}
    for name in experiment.runs:
        folder = folder_of(name)
        folder = folder.parent if folder.name in ("best", "last") else folder
        if not (folder / PREDICTIONS).is_file():
            there = "has no" if folder.is_dir() else "does not exist, nor its"
            raise FileNotFoundError(
                f"{name} {there} {PREDICTIONS}; name folders of mmfusion train, or of mmfusion evaluate --output."
            )
        folders[name] = folder
    if len({folder.resolve() for folder in folders.values()}) < max(2, len(experiment.runs)):
        raise ValueError(f"Two different runs at least are compared; got {', '.join(experiment.runs)}.")
    return folders


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
    if not variants and not experiment.splits_anew:
        raise ValueError("The study has no row beside its base; name what varies in 'vary' or 'rows'.")
    baselines: list[Row] = []
    if "modalities" in (asked := experiment.named_baselines):
        there = modalities(base)
        if len(there) < 2:
            raise ValueError("The base run reads one modality only, and has no baselines; set baselines: false.")
        baselines = [Row(f"{modality} alone", "baseline", unimodal(base, modality)) for modality in there]
    baselines += [Row(name, "baseline", base, name) for name in asked if name != "modalities"]
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


def modalities(base: RunConfig) -> list[str]:
    """What the base reads, as far as its settings tell: beside columns, a text only where they name one."""
    dataset, model = base.dataset, base.model
    told = not dataset.reads_columns or dataset.text_template or dataset.text_column or model.text_encoder is not None
    there = {
        "image": model.image_encoder != "none",
        "text": model.text_encoder != "none" and bool(told),
        "columns": dataset.reads_columns,
    }
    return [modality for modality, is_there in there.items() if is_there]


def unimodal(base: RunConfig, alone: str) -> RunConfig:
    """The base with one modality alone: what belongs to the others, or joins them, is left out with them."""
    settings: dict[str, Any] = dict.fromkeys(_JOINING_PARTS)
    for modality, gone in WITHOUT.items():
        settings |= gone if modality != alone else {}
    if base.train.loss == "mp":
        # the disagreement of two modalities; what is left of it with one is cross-entropy
        settings |= {"train.loss": "ce", "train.loss_args": {}}
    return with_settings(base, settings)


def plan_runs(experiment: ExperimentConfig, rows: list[Row], folds: Mapping[Any, dict[str, Any]]) -> Iterator[Run]:
    """Every row with every seed (and fold), seeds outermost: an experiment that is stopped has whole seeds.

    Args:
        experiment: the experiment.
        rows: its rows.
        folds: each part that is tested on, in order -> the settings of its split; ``{None: {}}`` where the split is
            fixed.
    """
    for seed, row, (i, (fold, split)) in product(experiment.seeds, rows, enumerate(folds.items())):
        config = replace(row.config, seed=seed)
        folder = Path(experiment.output, "runs", _slug(row.name), f"seed-{seed}")
        if fold is not None:
            config, folder = with_settings(config, split), folder / f"fold-{_slug(str(fold))}"
        first = seed == experiment.seeds[0] and i == 0
        yield Run(row.name, seed, fold, replace(config, output=str(folder)), first, row.reference)


def _slug(name: str) -> str:
    return re.sub("[^A-Za-z0-9._=-]+", "-", name).strip("-")
