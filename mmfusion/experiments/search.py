"""``sweep(config)``: hyperparameter search on the validation metric with Optuna."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.data import read_cases
from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.experiments.config import SweepConfig
from mmfusion.experiments.plan import base_run
from mmfusion.experiments.running import begin, run_once, settled
from mmfusion.files import sole_writer, write_frame, write_yaml
from mmfusion.progress import then_left
from mmfusion.registry import load_plugins
from mmfusion.settings import with_settings
from mmfusion.training import RunConfig
from mmfusion.training.build import with_task
from mmfusion.training.check import check_settings

if TYPE_CHECKING:
    from optuna import Study, Trial

INSTALL = "pip install 'mmfusion[sweep]'"


@dataclass
class SweepResult:
    """Result of a search.

    Attributes:
        best: Configuration of the best trial, with the ``settings`` (dotted) that were searched.
        value: Its validation ``metric``.
        test: Metrics of its test rows, which did not influence the search.
        finished: Number of finished trials.
        folder: Folder with ``best.yaml`` and ``trials.csv``.
    """

    best: RunConfig
    settings: dict[str, Any]
    metric: str
    value: float
    test: dict[str, float]
    finished: int
    folder: Path

    def summary(self) -> str:
        """The best trial and its metrics."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        test = ", ".join(f"{name} {value:.4f}" for name, value in self.test.items())
        return (
            f"best: {settings}; val {self.metric} {self.value:.4f}; its test rows: {test}\n"
            f"the validation metric is the best of {self.finished} and therefore too optimistic; "
            f"retrain it: {self.folder}/best.yaml"
        )


@sole_writer
def sweep(config: SweepConfig) -> SweepResult:
    """Search settings with a tree-structured Parzen estimator.

    A trial is scored by the validation rows of its best epoch; test rows have no influence. A stopped sweep resumes in
    its folder with the same outcome, since the next trial depends only on seed and finished trials. A trial that
    diverges counts as failed.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Akiba et al., Optuna, KDD 2019.

    Returns:
        The best trial; its configuration is also written to ``best.yaml`` for ``mmfusion train``, with ``trials.csv``.

    Raises:
        ValueError: A setting or range is invalid, the folder has another sweep, or no trial finished.
        ImportError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"mmfusion sweep needs optuna: {INSTALL}.") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    load_plugins(config.run.plugins)
    base = base_run(config)
    metric = config.metric or with_task(base).train.metric
    base = replace(base, train=replace(base.train, metric=metric))
    _check(config, base)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    asked = {"space": config.space, "seed": config.seed, "run": asdict(base)}  # the number of trials may grow
    begin(output / "sweep.yaml", asked, free=("run.data", "run.output"))
    _, sound = settled(read_cases(base.data, base.dataset), base.dataset, output)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(output / "trials.log"))),
        direction="maximize" if EVERY_METRIC[metric].higher_is_better else "minimize",
        load_if_exists=True,
    )
    _take_up(study)
    first, began = _finished(study), time.monotonic()
    while (number := _finished(study)) < config.trials:
        study.sampler = optuna.samplers.TPESampler(seed=config.seed * 100_003 + number)
        trial = study.ask()
        settings = {name: _suggest(trial, name, space) for name, space in config.space.items()}
        run = with_settings(base, settings | {"output": str(output / "trials" / f"{number:04d}")})
        result = run_once(run, images_checked=sound, keep_model=config.keep_models, cost=False)
        if told := result.get("error"):
            trial.set_user_attr("error", told)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_user_attr("test", result["figures"])
            study.tell(trial, result["val"][metric])
            told = f"val {metric} {result['val'][metric]:.4f}"
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        then = then_left(time.monotonic() - began, number + 1 - first, config.trials - number - 1)
        print(f"[{number + 1}/{config.trials}] {shown}: {told} ({result['seconds']:.0f} s){then}", flush=True)
    return _finish(study, base, metric, output)


def _check(config: SweepConfig, base: RunConfig) -> None:
    if not config.space:
        raise ValueError("The sweep has no space; add settings and their ranges to 'space'.")
    if config.trials < 1:
        raise ValueError(f"trials must be at least 1; got {config.trials}.")
    for name, space in config.space.items():
        for value in _ends(name, space):
            check_settings(with_settings(base, {name: value}))


def _ends(name: str, space: Any) -> list[Any]:
    """The choices, or both ends of a range.

    Raises:
        ValueError: Neither of the two.
    """
    if isinstance(space, list) and space:
        return space
    if isinstance(space, dict) and {"low", "high"} <= space.keys() <= {"low", "high", "log", "step"}:
        low, high = space["low"], space["high"]
        numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
        if numbers and low < high and (low > 0 or not space.get("log")):
            return [low, high]
    raise ValueError(
        f"space.{name} must be a list of choices or a range {{low: 1.0e-5, high: 1.0e-2, log: true}} (low above 0 with "
        f"log); got {space!r}."
    )


def _suggest(trial: Trial, name: str, space: Any) -> Any:
    if isinstance(space, list):
        return trial.suggest_categorical(name, space)
    low, high, log = space["low"], space["high"], bool(space.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=space.get("step") or 1, log=log)
    return trial.suggest_float(name, low, high, step=space.get("step"), log=log)


def _take_up(study: Study) -> None:
    """Requeue a trial that was interrupted; its run resumes from the last checkpoint."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _finished(study: Study) -> int:
    """Number of finished trials, including diverged ones but not interrupted ones."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return sum(trial.state == TrialState.COMPLETE or "error" in trial.user_attrs for trial in done)


def _finish(study: Study, base: RunConfig, metric: str, output: Path) -> SweepResult:
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(f"Every trial failed; see train.log in the folders in {output / 'trials'}.")
    write_frame(output / "trials.csv", study.trials_dataframe())
    best = study.best_trial
    config = with_settings(base, {**best.params, "output": str(output / "best")})
    write_yaml(output / "best.yaml", asdict(config))
    assert best.value is not None
    return SweepResult(config, best.params, metric, best.value, best.user_attrs["test"], _finished(study), output)
