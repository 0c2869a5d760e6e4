"""Checks of a run that need no heavy library: names of parts, folders, the data set."""

from mmfusion import registry
from mmfusion.artifacts.folder import is_saved, read_config, resolve_artifact
from mmfusion.data.early import check_data
from mmfusion.training.config import RunConfig


def check_run(config: RunConfig) -> None:
    """Find errors of a run early; :func:`~mmfusion.training.check.check_settings` finds the rest.

    Parts of plugins are known after these are imported.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: A part, a column or the split does not exist or is invalid.
    """
    model, train = config.model, config.train
    if is_saved(model.name):
        read_config(resolve_artifact(model.name))
    parts = {
        "model": None if is_saved(model.name) else model.name,
        "image_tower": model.image_tower,
        "table_tower": model.table_encoder,
        "aggregator": model.aggregator,
        "fusion": model.fusion,
        "head": model.head,
        "task": config.dataset.task,
        "loss": train.loss,
        "metric": train.metric,
        "augmentation": config.processor.augment,
    }
    for kind, name in parts.items():
        if name not in (None, "none", "auto"):
            registry.check_written(kind, str(name))
    check_data(config.data, config.dataset)
