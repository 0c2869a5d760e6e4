"""Planning of an experiment: its rows and runs."""

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
#: File with the test predictions of a finished run.
PREDICTIONS = "predictions.csv"
#: Modality -> settings of a run without it.
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
    """One row of an experiment's tables: a configuration trained with each seed and fold.

    The kind is ``base``, ``baseline`` (a single modality, or a ``reference`` without a network) or ``variant``.
    """

    name: str
    kind: str
    config: RunConfig
    reference: str | None = None


@dataclass(frozen=True)
class Run:
    """One training of a row, tested on ``fold`` (or None); ``first`` marks the first run of its row.

    ``reference`` is fitted instead of a network, if set.
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
        ValueError: A setting does not exist, or there are no data.
    """
    base = with_settings(config.run, config.base)
    base = base if config.data is None else replace(base, data=config.data)
    if not base.data:
        raise ValueError("Missing run.data: set it in the base run, or use --data.")
    return base


def finished_folders(experiment: ExperimentConfig) -> dict[str, Path]:
    """The folders with predictions of finished runs, by the names given.

    Raises:
        FileNotFoundError: A folder does not exist or has no predictions.
        ValueError: There are fewer than two runs, one is listed twice, or settings apply only to training.
    """
    plain = ExperimentConfig(run=RunConfig(data="", plugins=experiment.run.plugins))
    free = ("runs", "metric", "alarm", "benefit_thresholds", "output", "replicates", "level")
    differing = [f.name for f in fields(plain) if getattr(plain, f.name) != getattr(experiment, f.name)]
    if unused := [name for name in differing if name not in free]:
        raise ValueError(
            f"Finished runs are compared by their predictions only, without {', '.join(unused)}; for other data, "
            "evaluate each with mmfusion evaluate --output FOLDER, and compare these folders."
        )
    folders: dict[str, Path] = {}
    for name in experiment.runs:
        folder = folder_of(name)
        folder = folder.parent if folder.name in ("best", "last") else folder
        if not (folder / PREDICTIONS).is_file():
            there = "has no" if folder.is_dir() else "does not exist, nor its"
            raise FileNotFoundError(
                f"{name} {there} {PREDICTIONS}; use folders of mmfusion train or mmfusion evaluate --output."
            )
        folders[name] = folder
    if len({folder.resolve() for folder in folders.values()}) < max(2, len(experiment.runs)):
        raise ValueError(f"At least two different runs are needed; got {', '.join(experiment.runs)}.")
    return folders


def plan_rows(experiment: ExperimentConfig) -> list[Row]:
    """The rows of an experiment: base, baselines, then variants in the order of the file.

    A value of ``vary`` equal to the base's setting is the base, which takes its name from it.

    Raises:
        ValueError: Nothing varies, a setting does not exist, two rows have the same name, or baselines are
            requested but the base has a single modality.
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
        raise ValueError("The experiment has no row besides its base; add settings to 'vary' or 'rows'.")
    baselines: list[Row] = []
    if "modalities" in (asked := experiment.named_baselines):
        there = modalities(base)
        if len(there) < 2:
            raise ValueError("The base run has a single modality and no baselines; set baselines: false.")
        baselines = [Row(f"{modality} alone", "baseline", unimodal(base, modality)) for modality in there]
    baselines += [Row(name, "baseline", base, name) for name in asked if name != "modalities"]
    rows = [Row(", ".join(own) or "base", "base", base), *baselines, *variants]
    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two rows of the experiment are named {', '.join(map(repr, twice))}; rename one.")
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(_slug(name), name)
        if other != name or not _slug(name):
            raise ValueError(
                f"The rows {other!r} and {name!r} would share a folder, whose name keeps only letters and digits; "
                "rename one."
            )
    return rows


def modalities(base: RunConfig) -> list[str]:
    """Modalities of the base according to its settings; besides columns, a text only if one is set."""
    dataset, model = base.dataset, base.model
    told = not dataset.reads_columns or dataset.text_template or dataset.text_column or model.text_encoder is not None
    there = {
        "image": model.image_encoder != "none",
        "text": model.text_encoder != "none" and bool(told),
        "columns": dataset.reads_columns,
    }
    return [modality for modality, is_there in there.items() if is_there]


def unimodal(base: RunConfig, alone: str) -> RunConfig:
    """The base with a single modality, without settings of the others and of their fusion."""
    settings: dict[str, Any] = dict.fromkeys(_JOINING_PARTS)
    for modality, gone in WITHOUT.items():
        settings |= gone if modality != alone else {}
    if base.train.loss == "mp":
        # with one modality the disagreement loss reduces to cross-entropy
        settings |= {"train.loss": "ce", "train.loss_args": {}}
    return with_settings(base, settings)


def plan_runs(experiment: ExperimentConfig, rows: list[Row], folds: Mapping[Any, dict[str, Any]]) -> Iterator[Run]:
    """Every row with every seed (and fold), seeds outermost, so a stopped experiment has complete seeds.

    Args:
        experiment: The experiment.
        rows: Its rows.
        folds: Each part to test on, in order -> the settings of its split; ``{None: {}}`` for a fixed split.

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
