"""Stages of a timm backbone, stem first, from timm's layer groups."""

from typing import Any

from timm.models import group_parameters
from torch import nn


def stages_of(model: Any, *, coarse: bool = True) -> dict[str, int]:
    """Number of the stage of each parameter: 0 is the stem, then 1, 2, ... in the order of the forward pass.

    Args:
        model: timm model.
        coarse: Group by stages (blocks for transformers); False groups by single blocks.

    Raises:
        ValueError: timm does not divide this family into groups.
    """
    try:
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
    except (AttributeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"timm does not divide {type(model).__name__} into stages.") from error
    return {name: stage for stage, names in groups.items() for name in names}


def early_parts(model: Any, count: int) -> list[nn.Module | nn.Parameter]:
    """The stem and the first stages, as the largest modules that contain nothing else, and remaining parameters.

    Args:
        model: timm model.
        count: Number of stages after the stem; 0 selects only the stem.

    Raises:
        ValueError: The model has no stages, or not more than ``count``.
    """
    stages = stages_of(model)
    last = max(stages.values())
    if not 0 <= count < last:
        raise ValueError(f"{type(model).__name__} has {last} stages after its stem, of which the last is trained.")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return list(_below(model, {key for key, name in names.items() if stages[name] <= count}))


def _below(module: nn.Module, early: set[int]) -> list[nn.Module | nn.Parameter]:
    own = [id(parameter) for parameter in module.parameters()]
    if own and early.issuperset(own):
        return [module]
    direct: list[nn.Module | nn.Parameter] = [p for p in module.parameters(recurse=False) if id(p) in early]
    return direct + [part for child in module.children() for part in _below(child, early)]
