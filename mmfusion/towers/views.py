"""Tower for several views or sequences of one patient: tokens of the first attend to tokens of the others."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers import CrossAttentionLayer, masked_mean
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.towers.image import level_indices
from mmfusion.towers.several import SeveralTower, build_without_levels, each_present


@register("image_tower", "views")
class ViewsTower(SeveralTower):
    """Cross-attention between views of one patient, such as sagittal and axial, or T1 and T2.

    Q comes from the map tokens of the first present view, K and V from those of the other views, of any number. A
    missing view is replaced by an intermediate level of the query view, pooled to the same number of tokens and
    projected, so that a sample with one view compares two scales of it. All views share one backbone; the order of the
    others does not matter.

    Args:
        dim: Width that tokens are projected to.
        num_layers: Number of attention layers.
        num_heads: Number of heads per layer; divides ``dim``.
        dropout: Dropout within each layer.

    Raises:
        ValueError: Levels are requested, or ``dim`` is not divisible by ``num_heads``.
    """

    layout = "views"
    masks = ("view_mask",)
    free: ClassVar[Mapping[str, str]] = {"pixel_values": "images", "view_mask": "images"}
    fewest = 2  # the query view and another, which may be absent

    def __init__(
        self,
        encoder: str,
        weights: str | None = None,
        num_levels: int = 0,
        dim: int = 512,
        num_layers: int = 1,
        num_heads: int = 8,
        dropout: float = 0.1,
        **timm_args: Any,
    ) -> None:
        super().__init__(build_without_levels("views", encoder, weights, num_levels, **timm_args))
        channels = [info["num_chs"] for info in self.backbone.model.feature_info]
        self.level = level_indices(len(channels), 2)[0]
        self.proj = nn.Linear(self.backbone.num_features, dim)
        self.level_proj = nn.Linear(channels[self.level], dim)
        self.layers = nn.ModuleList([CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(dim)
        self.num_features = dim

    def encode(self, pixel_values: Tensor, view_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Views (B, V, 3, H, W), or (B, 3, H, W) as one view each -> ``tokens``, ``level`` (B, V, N, D) and ``mask``.

        Raises:
            ValueError: Shapes do not match.
        """
        images, mask = self.as_sequence(pixel_values, view_mask)
        if mask.shape[1] == 1:
            images, mask = torch.cat([images, images], dim=1), torch.cat([mask, torch.zeros_like(mask)], dim=1)
        tokens, level = each_present(self._tokens, images, mask, self.backbone)
        return {"tokens": tokens, "level": level, "mask": mask}

    def assemble(self, encoded: Mapping[str, Tensor]) -> Features:
        """Result of :meth:`encode` -> tokens (B, N, dim), pooled (B, dim).

        Returns:
            Also ``attentions``, ``views.<layer>`` -> (B, heads, N, (V - 1) N): from the query view's tokens to those of
            the other views (for V = 1, to the N tokens of the replacement).
        """
        level, mask = encoded["level"], encoded["mask"]
        tokens = self.proj(encoded["tokens"])
        asking = mask.int().argmax(dim=1)
        batch = mask.shape[0]  # `len` would become a constant in an exported program
        rows = torch.arange(batch, device=mask.device)
        x, stand_in = tokens[rows, asking], self.level_proj(level[rows, asking])
        # if a later view is the query, the first position takes that view's place among the others
        places = torch.arange(1, mask.shape[1], device=mask.device).expand(batch, -1)
        places = torch.where(places == asking[:, None], 0, places)
        others, present = tokens[rows[:, None], places], mask[rows[:, None], places]
        context = torch.where(present[..., None, None], others, stand_in.unsqueeze(1)).flatten(1, 2)
        attentions = {}
        for i, layer in enumerate(self.layers):
            x, attentions[f"views.{i}"] = layer(x, context)
        x = self.norm(x)
        return Features(tokens=x, pooled=masked_mean(x), attentions=attentions)

    def _tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) -> last tokens (N, T, D) and as many of the intermediate level (N, T, D_level)."""
        final, maps = self.backbone.model.forward_intermediates(images, indices=[self.level])
        tokens, level = self.backbone.tokens(final), maps[0]
        if level.shape[-2] * level.shape[-1] != tokens.shape[1]:
            is_last = getattr(self.backbone.model, "output_fmt", "NCHW") == "NHWC"
            level = F.adaptive_avg_pool2d(level, final.shape[1:3] if is_last else final.shape[2:])
        return tokens, level.flatten(2).transpose(1, 2)
