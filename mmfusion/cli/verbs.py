"""The commands as functions: ``mmfusion.train(data, model={"name": ...})`` is ``mmfusion train --data ...``.

The first argument is the data or the model, ``config`` is a YAML file or the command's dataclass, and the options of
the command are keywords; sections (``model``, ``dataset``, ``train``, ...) are dicts or their dataclass. ``data`` is a
path, a pandas DataFrame or a pyarrow Table. ``mmfusion COMMAND --help`` lists the options.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from mmfusion.artifacts.push import Pushed, PushPlan
    from mmfusion.auditing.findings import Audit
    from mmfusion.averaging.soup import Soup
    from mmfusion.data.memory import DataSource
    from mmfusion.data.split_table import DrawnSplit
    from mmfusion.experiments.comparison import Comparison
    from mmfusion.experiments.search import SweepResult
    from mmfusion.explanation.run import Explained
    from mmfusion.exporting.artifact import Exported
    from mmfusion.inference.embedding import Embedded
    from mmfusion.ladder.leaderboard import Leaderboard
    from mmfusion.narrative.run import NarratedData
    from mmfusion.results import Evaluation
    from mmfusion.sites.run import Validation
    from mmfusion.training.finish import TrainResult


def auto(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Leaderboard:
    """Train baselines, networks and their ensemble within a time limit.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.ladder.AutoConfig`.
        options: As that has them: ``time_limit``, ``output``, ``dataset={...}``, ``model={...}``, ...

    Returns:
        The leaderboard (``.frame()``), with ``.winner``, ``.predictor`` and ``.test``.
    """
    result: Leaderboard = _called("auto", config, data=data, **options)
    return result


def train(data: DataSource | None = None, *, config: Any = None, **options: Any) -> TrainResult:
    """Train a model on a table of cases.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.training.RunConfig`.
        options: As :class:`~mmfusion.training.RunConfig` has them: ``output``, ``seed``, ``dataset={...}``,
            ``model={"name": ...}``, ``processor={...}``, ``train={...}``, ...

    Returns:
        The run, with ``.predictor`` (the best model) and ``.evaluation``.

    Raises:
        TypeError: Unknown option; for all else see :func:`mmfusion.training.train`.
    """
    result: TrainResult = _called("train", config, data=data, **options)
    return result


def evaluate(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Evaluation:
    """Evaluate a trained model on one split of a data set.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.evaluation.EvaluateConfig`.
        options: As that has them: ``model``, ``split``, ``output``, ``dataset={...}``, ...
    """
    result: Evaluation = _called("evaluate", config, data=data, **options)
    return result


def predict(data: DataSource | None = None, *, config: Any = None, **options: Any) -> pd.DataFrame:
    """Predict a folder of images or a table.

    Args:
        data: The folder, or the table.
        config: YAML file or :class:`~mmfusion.inference.config.PredictConfig`, whose ``output`` is written.
        options: As that has them: ``model``, ``dataset={...}``, ``tta``, ...; a CSV is written where ``output`` is
            given.

    Returns:
        One row per row of the data, in their order: ``id, label, probability, p_<class>..., inputs, error``.
    """
    if config is not None or options.get("output") is not None:
        return _predicted(config, data=data, **options)
    with tempfile.TemporaryDirectory() as folder:
        return _predicted(None, data=data, **options | {"output": Path(folder, "predictions.csv")})


def explain(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Explained:
    """Explain predictions: heat maps, words, columns, modality contributions.

    Args:
        data: The folder of images, or the table.
        config: YAML file or :class:`~mmfusion.explanation.config.ExplainConfig`.
        options: As that has them: ``model``, ``output``, ``rows``, ``limit``, ``method``, ...
    """
    result: Explained = _called("explain", config, data=data, **options)
    return result


def compare(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Comparison:
    """Train variants of a run, or take finished runs (``runs=[...]``), and test the differences.

    Args:
        data: The data set to train on; None uses the run's own.
        config: YAML file or :class:`~mmfusion.experiments.config.ExperimentConfig`.
        options: As that has them: ``run`` (a YAML file, a dict or a ``RunConfig``), ``vary={...}``, ``seeds``, ...; or
            ``runs``, folders of finished runs.
    """
    result: Comparison = _called("compare", config, data=data, **options)
    return result


def sweep(data: DataSource | None = None, *, config: Any = None, **options: Any) -> SweepResult:
    """Search ranges of settings for the best validation metric.

    Args:
        data: The data set; None uses the run's own.
        config: YAML file or :class:`~mmfusion.experiments.config.SweepConfig`.
        options: As that has them: ``run`` (a YAML file, a dict or a ``RunConfig``), ``space={...}``, ``trials``, ...
    """
    result: SweepResult = _called("sweep", config, data=data, **options)
    return result


def validate(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Validation:
    """Evaluate a trained model at another site, and update its probabilities.

    Args:
        data: The data set of the other site.
        config: YAML file or :class:`~mmfusion.sites.ValidateConfig`.
        options: As that has them: ``model``, ``reference``, ``output``, ``store``, ``dataset={...}``, ...
    """
    result: Validation = _called("validate", config, data=data, **options)
    return result


def embed(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Embedded:
    """Write the feature vectors of an image encoder as bags to train on.

    Args:
        data: The folder of images, or the table.
        config: YAML file or :class:`~mmfusion.inference.config.EmbedConfig`.
        options: As that has them: ``output``, ``model`` or ``encoder``, ``format``, ...
    """
    result: Embedded = _called("embed", config, data=data, **options)
    return result


def narrate(data: DataSource | None = None, *, config: Any = None, **options: Any) -> NarratedData:
    """Write a narrative for each row from metadata and retrieved passages.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.narrative.config.NarrateConfig`.
        options: As that has them: ``output``, ``narrative={...}``, ``dataset={...}``.
    """
    result: NarratedData = _called("narrate", config, data=data, **options)
    return result


def split(data: DataSource | None = None, *, config: Any = None, **options: Any) -> DrawnSplit:
    """Draw a split by patient, stratified by class, and write it to a file.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.data.config.SplitConfig`.
        options: As that has them: ``output``, ``folds``, ``seed``, ``dataset={...}``.
    """
    result: DrawnSplit = _called("split", config, data=data, **options)
    return result


def audit(data: DataSource | None = None, *, config: Any = None, **options: Any) -> Audit:
    """Look for leaks, duplicates, missing data and rare classes that invalidate metrics.

    Args:
        data: The data set.
        config: YAML file or :class:`~mmfusion.auditing.config.AuditConfig`.
        options: As that has them: ``output`` (default ``audit``), ``split``, ``dataset={...}``.
    """
    result: Audit = _called("audit", config, data=data, **options)
    return result


def export(model: Any = None, output: Any = None, *, config: Any = None, **options: Any) -> Exported:
    """Export a trained model to ONNX or ``torch.export``, and compare it with the original.

    Args:
        model: Trained model.
        output: Folder or file to write.
        config: YAML file or :class:`~mmfusion.exporting.config.ExportConfig`.
        options: As that has them: ``format``, ``tolerance``, ``quantize``, ``data``, ``dataset={...}``.
    """
    result: Exported = _called("export", config, model=model, output=output, **options)
    return result


def soup(models: Any = None, output: Any = None, *, config: Any = None, **options: Any) -> Soup:
    """Average the weights of several runs of one architecture.

    Args:
        models: The runs.
        output: Folder to write.
        config: YAML file or :class:`~mmfusion.averaging.config.SoupConfig`.
        options: As that has them: ``data``, ``method``, ``metric``, ``dataset={...}``.
    """
    result: Soup = _called("soup", config, models=models, output=output, **options)
    return result


def push(model: Any = None, repo: str | None = None, *, config: Any = None, **options: Any) -> Pushed | PushPlan:
    """Upload a saved model to the Hugging Face Hub, in one commit.

    Args:
        model: Folder of a saved model, or a run folder.
        repo: ``org/name`` on the Hub.
        config: YAML file or :class:`~mmfusion.artifacts.config.PushConfig`.
        options: As that has them: ``private``, ``dry_run``, ...
    """
    result: Pushed | PushPlan = _called("push", config, model=model, repo=repo, **options)
    return result


def _called(name: str, config: Any, **options: Any) -> Any:
    from mmfusion.artifacts.integrity import edits
    from mmfusion.cli.calls import configured, run  # the parser is not needed to have the names

    with edits(None):
        return run(name, configured(name, config, **options))


def _predicted(config: Any, **options: Any) -> pd.DataFrame:
    return _called("predict", config, **options).frame()
