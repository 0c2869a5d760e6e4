"""The settings of a run, checked before any data are read."""

from mmfusion import registry
from mmfusion.evaluation.metrics import METRICS
from mmfusion.hardware import resolve_precision
from mmfusion.models.factory import resolve_config
from mmfusion.models.parts import check_parts
from mmfusion.training.build import build_loss, needs_aux_heads
from mmfusion.training.config import RunConfig
from mmfusion.training.weights import tower_starts


def check_settings(config: RunConfig) -> None:
    """Refuse settings out of range, and names and keywords that nothing has. Builds no model.

    Raises:
        ValueError: a setting out of range, an unknown metric, model, part or loss, or tower weights that nobody said
            to fetch.
        TypeError: a keyword that models, the named part or the loss do not take.
    """
    train, augment = config.train, config.processor.augment
    for section in (config.model, config.processor, train):
        section.__post_init__()  # a field may have been set since
    if train.metric not in METRICS:
        raise ValueError(f"train.metric must be one of {', '.join(METRICS)}; got {train.metric!r}.")
    if train.feature_cache is not None and (train.feature_views > 0) != (augment != "none"):
        expected = f"{'0' if augment == 'none' else 'at least 1'} with processor.augment {augment}"
        raise ValueError(f"train.feature_views must be {expected}; got {train.feature_views}.")
    if augment != "none":
        registry.get("augmentation", augment)
    resolve_precision(train.precision)
    aux_heads = needs_aux_heads(build_loss(train, class_counts=[1, 1]))
    if not config.model.is_saved:
        check_parts(resolve_config(config.model.name, **config.model.overrides(), aux_heads=aux_heads))
    tower_starts(config)
