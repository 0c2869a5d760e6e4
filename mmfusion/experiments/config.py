"""Options of experiments. Imports no heavy library."""

from dataclasses import dataclass, field
from typing import Any

from mmfusion.data.memory import as_setting
from mmfusion.names import check_choice
from mmfusion.training.config import RunConfig

#: Each modality alone, and references without a network.
BASELINES = ("modalities", "prior", "gradient_boosting")


@dataclass
class ExperimentConfig:
    """Compare runs that differ from a base run in one setting: ``mmfusion compare --config STUDY.yaml``.

    Or compare finished runs on the same rows: ``mmfusion compare --runs runs/a runs/b``.

    Attributes:
        runs: Folders of finished runs or evaluations, each with its ``predictions.csv``; the first is the base. Nothing
            is trained; ``metric``, ``alarm``, ``benefit_thresholds``, ``output``, ``replicates`` and ``level``
            are the only further options.
        run: The base run: a YAML file for ``mmfusion train`` (its path relative to the experiment's), or its settings.
        base: Settings of the base run that differ from the file, dotted (``{train.lr: 3.0e-4}``).
        vary: Dotted setting -> values. Each value is a row: the base run with this one setting changed.
        rows: name -> dotted settings, for rows that change several settings at once (a loss and its keywords).
        baselines: ``true`` also runs each modality of the base (image, text, columns) alone. Or a list of baselines:
            ``modalities`` (the same), ``prior`` (the class shares) and ``gradient_boosting`` (of the columns).
        seeds: Seeds of the runs; each row is trained once per seed, on the same split.
        cross_validate: Test on every fold of ``dataset.fold_column`` in turn, with the next fold for validation, and
            evaluate the pooled test rows. ``dataset.folds`` is then not needed.
        leave_out: Column (manufacturer, hospital) whose values are left out of training in turn and used as test rows;
            some of the other rows are drawn for validation. Each value is a row of the table.
        alarm: Classes to act on together; reports the net benefit of each row, and its difference to the base's, at
            each of ``benefit_thresholds``.
        benefit_thresholds: Threshold probabilities for the net benefit.
        metric: Metric of the verdicts and the figure; None uses the task's default.
        data: Root folder of the data set; None uses the run's own.
        output: Folder of the experiment: runs, tables and figure; default ``runs/study``, for finished runs
            ``runs/comparison``. A stopped experiment continues there.
        jobs: Number of parallel runs, each in a process with its share of the cores.
        replicates: Number of bootstrap replicates.
        level: Confidence level of the intervals.
        keep_models: Keep the best model of each run, in addition to its metrics and predictions.
    """

    runs: list[str] = field(default_factory=list)
    run: RunConfig = field(default_factory=lambda: RunConfig(data=""))
    base: dict[str, Any] = field(default_factory=dict)
    vary: dict[str, list[Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    baselines: bool | list[str] = True
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    cross_validate: bool = False
    leave_out: str | None = None
    alarm: list[str] = field(default_factory=list)
    benefit_thresholds: list[float] = field(default_factory=lambda: [0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
    metric: str | None = None
    data: str | None = None
    output: str = ""
    jobs: int = 1
    replicates: int = 1000
    level: float = 0.95
    keep_models: bool = False

    def __post_init__(self) -> None:
        self.data = as_setting(self.data) if self.data is not None else None
        self.output = self.output or ("runs/comparison" if self.runs else "runs/study")
        if self.leave_out is not None and self.cross_validate:
            raise ValueError("leave_out and cross_validate cannot be combined; choose one.")
        for name in self.named_baselines:
            check_choice("baselines", name, BASELINES)

    @property
    def splits_anew(self) -> bool:
        """Whether the split of the data set is ignored."""
        return self.cross_validate or self.leave_out is not None

    @property
    def named_baselines(self) -> list[str]:
        """The baselines by name."""
        return self.baselines if isinstance(self.baselines, list) else ["modalities"] * self.baselines


@dataclass
class DemoConfig:
    """Options of ``mmfusion demo``.

    Attributes:
        output: Folder for the data, the runs and the report; an earlier demo there is replaced.
        seed: Seed of the data and of the training.
    """

    output: str = "runs/demo"
    seed: int = 0


@dataclass
class SweepConfig:
    """Search over ranges of settings: ``mmfusion sweep --config SWEEP.yaml``.

    Attributes:
        run: The run to improve: a YAML file for ``mmfusion train`` (its path relative to this one's), or its settings.
        base: Settings of the run that differ from the file, dotted.
        space: Dotted setting -> a list of choices, or a range ``{low: 1.0e-5, high: 1.0e-2, log: true}`` (of whole
            numbers if both ends are whole; ``step`` is optional).
        trials: Number of trials, including those of a stopped sweep in the same folder.
        metric: Validation metric to optimize; None uses ``run.train.metric``.
        seed: Seed of the search.
        data: Root folder of the data set; None uses the run's own.
        output: Folder of the sweep. A stopped sweep continues there.
        keep_models: Keep the best model of each trial, in addition to its metrics.
    """

    run: RunConfig
    space: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    trials: int = 20
    metric: str | None = None
    seed: int = 0
    data: str | None = None
    output: str = "runs/sweep"
    keep_models: bool = False

    def __post_init__(self) -> None:
        self.data = as_setting(self.data) if self.data is not None else None
