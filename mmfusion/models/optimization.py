"""Which parameters of a model an optimizer trains, how fast, and which of them it decays."""

from typing import Any

from torch import nn


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters that some module below the model names, relative to itself, in ``no_weight_decay()``."""
    found: set[int] = set()
    for module in model.modules():
        hook: Any = getattr(module, "no_weight_decay", None)
        if hook is not None and module is not model:
            own = dict(module.named_parameters())
            found |= {id(own[name]) for name in hook() if name in own}  # a backbone may name what its variant lacks
    return {name for name, parameter in model.named_parameters() if id(parameter) in found}


def grouped(
    model: nn.Module, encoders: list[nn.Module], *, lr: float, weight_decay: float, encoder_lr_scale: float
) -> list[dict[str, Any]]:
    """Parameter groups of a model, those of its encoders apart; see :meth:`mmfusion.FusionModel.param_groups`."""
    kept = undecayed(model)
    slow = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    groups: dict[str, dict[str, Any]] = {
        f"{part}_{suffix}": {"name": f"{part}_{suffix}", "params": [], "lr": rate, "weight_decay": decay}
        for part, rate in (("encoders", lr * encoder_lr_scale), ("rest", lr))
        for suffix, decay in (("decay", weight_decay), ("no_decay", 0.0))
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "encoders" if id(parameter) in slow else "rest"
            suffix = "no_decay" if parameter.ndim <= 1 or name in kept else "decay"
            groups[f"{part}_{suffix}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
