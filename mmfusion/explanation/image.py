"""Relevance of image positions for a class: Grad-CAM, integrated gradients and occlusion, by captum."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.explanation.forward import attributing, captum_attr, logits_of
from mmfusion.names import did_you_mean
from mmfusion.towers import Backbone

METHODS = ("grad_cam", "integrated_gradients", "occlusion")

Layer = tuple[nn.Module, str, int]  # the module, its layout (NCHW, NHWC or tokens), and its prefix tokens


def image_relevance(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    target: int,
    *,
    method: str = "grad_cam",
    level: int = -1,
    layer: nn.Module | None = None,
    steps: int = 16,
    window: float = 0.15,
) -> list[Tensor]:
    """Relevance of each image position for the logit of a class; positive values support the class.

    The other inputs are unchanged.

    Args:
        model: A ``FusionModel`` with an image tower.
        inputs: Keyword tensors of one sample (B = 1).
        target: Position of the class.
        method: ``grad_cam``, sum_k mean(d logit / d A_k) A_k over the channels of the backbone's last map (Selvaraju et
            al. 2017); in a vision transformer, over the tokens that the last block's attention reads.
            ``integrated_gradients`` of the pixels, from the mean image (Sundararajan et al. 2017). ``occlusion``, the
            drop of the logit if a window is grayed out (Zeiler & Fergus 2014).
        level: As in :class:`~mmfusion.explanation.config.ExplainConfig`.
        layer: For ``grad_cam`` in a tower without a timm backbone: a module that returns (N, C, h, w).
        steps: Number of steps of the integral.
        window: Side of the occluding window, relative to the image's.

    Returns:
        One (h, w) map per image that the tower reads, in its order: the image; the present slices or views; or the
        whole image and its region of interest. Those of Grad-CAM have the size of the backbone's map.

    Raises:
        ValueError: No image in the inputs, more than one sample, an unknown method, or no suitable layer.
        ImportError: captum is not installed.
    """
    pixels = inputs.get("pixel_values")
    if pixels is None or getattr(model, "image_tower", None) is None:
        raise ValueError("There is no image to explain: the model has no image tower, or the sample no pixel_values.")
    if pixels.shape[0] != 1:
        raise ValueError(f"One sample is explained at a time, got a batch of {pixels.shape[0]}.")
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; {did_you_mean(method, list(METHODS))}")
    forward, others = logits_of(model, inputs, "pixel_values")
    captum, options = captum_attr(), {"target": target, "additional_forward_args": others}
    with attributing(model):
        if method == "grad_cam":
            layers = [(layer, "NCHW", 0)] if layer is not None else _feature_layers(model, level)
            with _tapped(layers, forward, pixels, others) as taps:
                maps = [captum.LayerGradCam(forward, tap).attribute(pixels, **options) for tap in taps]
            return [picture for found in maps for picture in found.detach()[:, 0]]
        if method == "integrated_gradients":
            options |= {"n_steps": steps, "internal_batch_size": 4}
            found = captum.IntegratedGradients(forward).attribute(pixels, **options)
        else:
            side, single = max(1, round(window * pixels.shape[-1])), (1,) * (pixels.ndim - 4)
            options |= {"sliding_window_shapes": (*single, 3, side, side), "perturbations_per_eval": 4}
            options |= {"strides": (*single, 3, max(1, side // 2), max(1, side // 2))}
            found = captum.Occlusion(forward).attribute(pixels, **options)
    pictures = found.detach().sum(dim=-3).flatten(0, -3)
    return list(pictures if pixels.ndim == 4 else pictures[present_pictures(model, inputs)])


def present_pictures(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """(S,) bool, True for the present slices or views of a sample."""
    masks = [inputs[name] for name in model.image_tower.masks if inputs.get(name) is not None]
    return masks[0][0].bool() if masks else torch.ones(inputs["pixel_values"].shape[1], dtype=torch.bool)


def _feature_layers(model: nn.Module, level: int) -> list[Layer]:
    """The last layer of a level, for each backbone of the image tower."""
    tower: Any = model.image_tower
    layers = [_feature_layer(module.model, level) for module in tower.modules() if isinstance(module, Backbone)]
    if not layers:
        raise ValueError(f"{type(tower).__name__} has no timm backbone; set layer= to a module that returns a map.")
    return layers


def _feature_layer(backbone: Any, level: int) -> Layer:
    count = len(backbone.feature_info)
    if not -count <= level < count:
        raise ValueError(f"level={level} is not one of the {count} levels of {type(backbone).__name__}.")
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    blocks = getattr(backbone, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(blocks[-1], "norm1"):
        # After the last block only the class token may be used; all tokens matter at the input of its attention.
        block: Any = blocks[level]
        return block.norm1, "tokens", prefix
    name = backbone.feature_info[level]["module"]
    layout = getattr(backbone, "output_fmt", "NCHW")
    return backbone.get_submodule(name), str(getattr(layout, "value", layout)), prefix


@contextlib.contextmanager
def _tapped(
    layers: Sequence[Layer], forward: Any, pixels: Tensor, others: tuple[Tensor, ...]
) -> Iterator[list[nn.Module]]:
    """A module for each call of a layer, which returns the layer's result as (N, C, h, w).

    captum needs modules that are called once and return maps with channels first. A tower may call its backbone several
    times (whole image, then region), and a backbone may return maps with channels last, or tokens.
    """
    taps: list[nn.Module] = []
    turns: Iterator[nn.Module] | None = None

    def route(layout: str, prefix: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if turns is None:
                taps.append(nn.Identity())
                return output
            seen = _channels_first(output, layout, prefix, pixels)
            # A leaf, so that gradients stop here.
            return _restored(next(turns)(seen.detach().requires_grad_()), output, layout)

        return hook

    handles = [layer.register_forward_hook(route(layout, prefix)) for layer, layout, prefix in layers]
    try:
        with torch.no_grad():
            forward(pixels, *others)
        if not taps:
            raise ValueError("The image tower did not run: the sample has no image to explain.")
        turns = itertools.cycle(taps)
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _channels_first(x: Tensor, layout: str, prefix: int, pixels: Tensor) -> Tensor:
    """A layer's result as (N, C, h, w), without prefix tokens."""
    if x.ndim == 3:
        count = x.shape[1] - prefix
        height = max(1, round(math.sqrt(count * pixels.shape[-2] / pixels.shape[-1])))
        if count % height:
            raise ValueError(
                f"The backbone's {count} tokens are not a grid; set layer= to a module that returns a map."
            )
        return x[:, prefix:].transpose(1, 2).unflatten(-1, (height, -1))
    if x.ndim != 4:
        raise ValueError(
            f"The layer returns {tuple(x.shape)}, which is not a map; set layer= to a module that returns (N, C, h, w)."
        )
    return x.permute(0, 3, 1, 2) if layout == "NHWC" else x


def _restored(x: Tensor, like: Tensor, layout: str) -> Tensor:
    """The inverse of :func:`_channels_first`; prefix tokens come from the layer's own result."""
    if like.ndim == 3:
        tokens = x.flatten(2).transpose(1, 2)
        return torch.cat([like[:, : like.shape[1] - tokens.shape[1]].detach(), tokens], dim=1)
    return x.permute(0, 2, 3, 1) if layout == "NHWC" else x
