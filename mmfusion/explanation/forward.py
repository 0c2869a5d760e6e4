"""A model as an attribution method wants it: a function of one input, in evaluation mode, cheap to call many times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput


def captum_attr() -> Any:
    """The module ``captum.attr``.

    Raises:
        ImportError: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise ImportError('Explanations need captum: pip install "mmfusion[explain]"') from error
    return captum.attr


def logits_of(
    model: nn.Module, inputs: Mapping[str, Tensor], name: str
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The logits as a function of one input, followed by all others.

    Args:
        model: a ``FusionModel``.
        inputs: its keyword tensors.
        name: the input to attribute to.

    Returns:
        The function, and what to pass behind the input (captum's ``additional_forward_args``).
    """
    others = [key for key in inputs if key != name]

    def forward(value: Tensor, *rest: Tensor) -> Tensor:
        return model(**{name: value, **dict(zip(others, rest, strict=True))}).logits

    return forward, tuple(inputs[key] for key in others)


def has_modality(model: Any, inputs: Mapping[str, Tensor], name: str) -> bool:
    """Whether a sample (B = 1) has an ``image`` or a ``text`` that the model reads."""
    value, masks = (
        ("pixel_values", ("slice_mask", "view_mask")) if name == "image" else ("input_ids", ("attention_mask",))
    )
    if getattr(model, f"{name}_tower", None) is None or inputs.get(value) is None:
        return False
    return all(bool(inputs[key][0].any()) for key in (f"{name}_present", *masks) if inputs.get(key) is not None)


@contextlib.contextmanager
def attributing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and gradients of inputs but not of weights: no graph is built that no one reads."""
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        # cuDNN's recurrent layers have no backward pass in evaluation mode; torch's own have.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextlib.contextmanager
def computed_once(tower: nn.Module | None) -> Iterator[None]:
    """A tower that runs on its first call only; later calls, on repeats of the same sample, get its result."""
    if tower is None:
        yield
        return
    forward = tower.forward
    kept: list[Any] = []

    def once(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not kept:
            rest = [x[:1] if isinstance(x, Tensor) else x for x in args]
            named = {key: x[:1] if isinstance(x, Tensor) else x for key, x in kwargs.items()}
            with torch.no_grad():
                kept.append(forward(first[:1], *rest, **named))
        return _repeated(kept[0], first.shape[0])

    tower.forward = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        del tower.forward


def _repeated(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value.expand(count, *value.shape[1:])
    if isinstance(value, ModelOutput):
        return type(value)(**{key: _repeated(item, count) for key, item in value.items()})
    if isinstance(value, dict):
        return {key: _repeated(item, count) for key, item in value.items()}
    return tuple(_repeated(item, count) for item in value)
