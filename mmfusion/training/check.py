"""Checks of the settings of a run before any data are read."""

import contextlib
from dataclasses import replace
from typing import Any

from mmfusion import registry
from mmfusion.artifacts.folder import is_saved
from mmfusion.hardware import check_compiler, resolve_precision
from mmfusion.models.factory import resolve_config
from mmfusion.models.parts import check_parts
from mmfusion.task import task_named
from mmfusion.training.build import TABLE_ENCODER, build_loss, needs_aux_heads, task_keywords, with_task
from mmfusion.training.config import RunConfig
from mmfusion.training.contents import may_leave_text_out
from mmfusion.training.weights import tower_starts


def check_settings(config: RunConfig) -> None:
    """Reject values out of range and unknown names and keywords. Builds no model.

    Raises:
        ValueError: A setting is out of range; a metric, model, part or loss is unknown; or tower weights would have to
            be downloaded without permission.
        TypeError: Models, the named part or the loss have no such keyword.
    """
    config = with_task(config)
    task = task_named(config.dataset.task)
    train, augment = config.train, config.processor.augment
    for section in (config.dataset, config.model, config.processor, train, config.privacy):
        section.__post_init__()  # fields may have been assigned later
    if train.metric not in task.metrics:
        raise ValueError(f"train.metric must be one of {', '.join(task.metrics)}; got {train.metric!r}.")
    by_class: dict[str, Any] = {"prior_strength": 0.0, "sampler": "shuffle", "alarm": [], "operating_points": []}
    for name, off in by_class.items():
        if getattr(train, name) != off:
            task.need_one_class(f"train.{name}")
    if train.feature_cache is not None and (train.feature_views > 0) != (augment != "none"):
        expected = f"{'0' if augment == 'none' else 'at least 1'} with processor.augment {augment}"
        raise ValueError(f"train.feature_views must be {expected}; got {train.feature_views}.")
    if augment != "none":
        registry.get("augmentation", augment)
    if train.image_sizes and train.image_sizes[-1] != config.processor.image_size:
        own = config.processor.image_size
        raise ValueError(f"train.image_sizes must end with processor.image_size, {own}; got {train.image_sizes}.")
    resolve_precision(train.precision)
    if train.compile:
        check_compiler()
    counts = {"class_counts": [1, 1], "other_counts": [1, 1]}
    aux_heads = needs_aux_heads(build_loss(train, task, counts))
    if not is_saved(config.model.name):
        overrides = {**config.model.overrides(), **task_keywords(config), "aux_heads": aux_heads}
        parts = resolve_config(config.model.name, **overrides)
        if config.dataset.reads_columns and parts.get("table_encoder") is None:
            parts = resolve_config(config.model.name, **overrides, table_encoder=TABLE_ENCODER)
        check_parts(parts)
        if parts["image_encoder"] is None:
            asked = [name for name in ("freeze_stages", "mixup", "cutmix") if getattr(train, name) is not None]
            if asked:
                raise ValueError(f"train.{asked[0]} applies to images, but {config.model.name} uses none; remove it.")
        if may_leave_text_out(config):  # its weights are only needed if a row has a text
            with contextlib.suppress(ValueError):  # an error that names all towers without weights follows
                tower_starts(replace(config, model=replace(config.model, text_encoder="none")))
                return
    tower_starts(config)
