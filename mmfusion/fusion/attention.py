"""Fusion by attention between image tokens and text tokens (report table 3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mmfusion.fusion.base import FusionBlock
from mmfusion.layers import CrossAttentionLayer, masked_mean
from mmfusion.layers.attention import join_masks
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "cross_attention")
class CrossAttention(FusionBlock):
    """Tokens of one modality are the query, tokens of the other key and value (Vaswani et al. 2017).

    Args:
        image_dim: width of the image tokens.
        text_dim: width of the text tokens.
        dim: width both are projected to, and of the result.
        num_layers: transformer layers, 1 or 2 in the report.
        num_heads: attention heads.
        query: whose tokens ask: ``text`` (the report's choice) or ``image``.
        dropout: within each layer.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 256,
        num_layers: int = 1,
        num_heads: int = 8,
        query: Literal["text", "image"] = "text",
        dropout: float = 0.1,
    ) -> None:
        if query not in ("text", "image"):
            raise ValueError(f"query={query!r} is not one of 'text', 'image'.")
        super().__init__(num_features=dim, side_dims=(dim, dim))
        self.query = query
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Linear(text_dim, dim)
        self.layers = nn.ModuleList([CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> the query side's tokens and their mean (B, dim)."""
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        x, x_mask, context, mask = (
            (t, text.mask, v, image.mask) if self.query == "text" else (v, image.mask, t, text.mask)
        )
        name = "text_to_image" if self.query == "text" else "image_to_text"
        attentions = {}
        for i, layer in enumerate(self.layers):
            x, attentions[f"{name}.{i}"] = layer(x, context, mask)
        x = self.norm(x)
        return Fused(
            pooled=masked_mean(x, x_mask),
            tokens=x,
            mask=x_mask,
            image=masked_mean(v, image.mask),
            text=masked_mean(t, text.mask),
            attentions=attentions,
        )


@register("fusion", "co_attention")
class CoAttention(FusionBlock):
    """Both directions at once: each side's tokens ask the other's (ViLBERT, Lu et al. 2019).

    Args:
        image_dim: width of the image tokens.
        text_dim: width of the text tokens.
        dim: width both are projected to; the result is twice as wide.
        num_layers: co-attentional layers.
        num_heads: attention heads.
        dropout: within each layer.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 256,
        num_layers: int = 1,
        num_heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(num_features=2 * dim, side_dims=(dim, dim))
        self.token_features = dim
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Linear(text_dim, dim)
        self.image_layers = nn.ModuleList(
            [CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)]
        )
        self.text_layers = nn.ModuleList(
            [CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)]
        )
        self.image_norm = nn.LayerNorm(dim)
        self.text_norm = nn.LayerNorm(dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> pooled (B, 2 dim), tokens (B, N + L, dim)."""
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        attentions = {}
        for i, (ask_text, ask_image) in enumerate(zip(self.image_layers, self.text_layers, strict=True)):
            (v, attentions[f"image_to_text.{i}"]), (t, attentions[f"text_to_image.{i}"]) = (
                ask_text(v, t, text.mask),
                ask_image(t, v, image.mask),
            )
        v, t = self.image_norm(v), self.text_norm(t)
        image_pooled, text_pooled = masked_mean(v, image.mask), masked_mean(t, text.mask)
        return Fused(
            pooled=torch.cat([image_pooled, text_pooled], dim=-1),
            tokens=torch.cat([v, t], dim=1),
            mask=join_masks(v, image.mask, t, text.mask),
            image=image_pooled,
            text=text_pooled,
            attentions=attentions,
        )
