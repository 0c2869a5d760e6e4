"""Parameter groups for optimizers: learning rates by layer, and parameters without weight decay."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from mmfusion.towers.base import Tower


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters that a submodule lists, relative to itself, in ``no_weight_decay()``."""
    found: set[int] = set()
    for module in model.modules():
        hook: Any = getattr(module, "no_weight_decay", None)
        if hook is not None and module is not model:
            own = dict(module.named_parameters())
            found |= {
                id(own[name]) for name in hook() if name in own
            }  # a backbone may list parameters that this variant lacks
    return {name for name, parameter in model.named_parameters() if id(parameter) in found}


def steps_from_the_top(towers: Iterable[Tower]) -> dict[int, int]:
    """Number of layers above each backbone parameter, by the parameter's id."""
    above: dict[int, int] = {}
    for tower in towers:
        numbers = tower.layer_numbers()
        last = max(numbers.values(), default=0)
        above |= {id(p): last - numbers.get(name, last) for name, p in tower.backbone.named_parameters()}
    return above


def grouped(
    model: nn.Module,
    towers: Sequence[Tower],
    *,
    lr: float,
    weight_decay: float,
    encoder_lr_scale: float,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups of a model, with separate ones for encoders; see :meth:`mmfusion.FusionModel.param_groups`."""
    kept = undecayed(model)
    above = dict.fromkeys((id(p) for tower in towers for p in tower.backbone.parameters()), 0)
    if layer_decay != 1:
        above = steps_from_the_top(towers)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part, rate = "rest", lr
            if (steps := above.get(id(parameter))) is not None:
                part, rate = f"encoders{-steps or ''}", lr * encoder_lr_scale * layer_decay**steps
            suffix, decay = ("no_decay", 0.0) if parameter.ndim <= 1 or name in kept else ("decay", weight_decay)
            key = f"{part}_{suffix}"
            group = groups.setdefault(key, {"name": key, "params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: (group["name"].startswith("rest"), group["lr"], group["name"]))
