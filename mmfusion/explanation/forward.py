"""Model wrappers for attribution methods: a function of one input, in evaluation mode, cheap to call repeatedly."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.task import task_of


def captum_attr() -> Any:
    """The module ``captum.attr``; ImportError if captum is not installed."""
    try:
        import captum.attr
    except ImportError as error:
        raise ImportError('Explanations need captum: pip install "mmfusion[explain]"') from error
    return captum.attr


def logits_of(
    model: nn.Module, inputs: Mapping[str, Tensor], name: str
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The evidence for each label (for classes, the logits) as a function of the input ``name``.

    The other inputs are further arguments, captum's ``additional_forward_args``.
    """
    task = task_of(model)
    others = [key for key in inputs if key != name]

    def forward(value: Tensor, *rest: Tensor) -> Tensor:
        return task.evidence(task.raw(model(**{name: value, **dict(zip(others, rest, strict=True))})))

    return forward, tuple(inputs[key] for key in others)


def has_modality(model: Any, inputs: Mapping[str, Tensor], name: str) -> bool:
    """Whether a sample (B = 1) has a modality (``image``, ``text``, ``table``) that the model reads."""
    tower = model.towers.get(name)
    if tower is None or not tower.select(inputs):
        return False
    present = tower.present(inputs)
    return present is None or bool(present[0])


@contextlib.contextmanager
def attributing(model: nn.Module) -> Iterator[None]:
    """Context with the model in evaluation mode and without gradients for weights, only for inputs."""
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        # cuDNN's recurrent layers have no backward pass in evaluation mode; torch's own do.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextlib.contextmanager
def computed_once(tower: nn.Module | None) -> Iterator[None]:
    """Context in which a tower runs only once; later calls, on copies of the same sample, return the first result."""
    if tower is None:
        yield
        return
    forward = tower.forward
    kept: list[Any] = []

    def once(*args: Tensor, **kwargs: Tensor) -> Any:
        if not kept:
            with torch.no_grad():
                kept.append(forward(*(x[:1] for x in args), **{name: x[:1] for name, x in kwargs.items()}))
        repeated = partial(_repeated, count=len(next(iter((*args, *kwargs.values())))))
        return repeated(kept[0]) if isinstance(kept[0], Tensor) else kept[0].map(repeated)

    tower.forward = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        del tower.forward


def _repeated(x: Tensor, count: int) -> Tensor:
    return x.expand(count, *x.shape[1:])
