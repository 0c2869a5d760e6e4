"""What of a run can be checked before any heavy library is imported: names of parts, folders, the data set."""

from mmfusion import registry
from mmfusion.artifacts.folder import is_saved, read_config, resolve_artifact
from mmfusion.data.early import check_data
from mmfusion.training.config import RunConfig


def check_run(config: RunConfig) -> None:
    """Find what a run would refuse later; :func:`~mmfusion.training.check.check_settings` knows the rest.

    Parts of plugins are known once these are imported.

    Raises:
        FileNotFoundError: A file or folder is not there.
        ValueError: No part of a name, or a column or the split is not as asked for.
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
