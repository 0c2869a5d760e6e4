"""Fusion by attention between image tokens and text tokens."""

from typing import Any, Literal

from torch import nn

from mmfusion.fusion.base import ProjectedFusion, side_by_side
from mmfusion.layers import CrossAttentionLayer, masked_mean
from mmfusion.names import check_choice
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "cross_attention")
class CrossAttention(ProjectedFusion):
    """Cross-attention: tokens of one side are queries, tokens of the other keys and values (Vaswani et al. 2017).

    Args:
        dim: Width both are projected to, and of the result.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads.
        query: Side whose tokens are the queries: ``text`` or ``image``.
        dropout: Dropout within each layer.
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
        check_choice("query", query, ("text", "image"))
        super().__init__(image_dim, text_dim, dim)
        self.query = query
        self.layers = nn.ModuleList([CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> the query side's tokens and their mean (B, dim)."""
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        sides = {"text": (t, text.mask), "image": (v, image.mask)}
        x, x_mask = sides.pop(self.query)
        ((asked, (context, mask)),) = sides.items()
        attentions = {}
        for i, layer in enumerate(self.layers):
            x, attentions[f"{self.query}_to_{asked}.{i}"] = layer(x, context, mask)
        x = self.norm(x)
        own: dict[str, Any] = {"image": masked_mean(v, image.mask), "text": masked_mean(t, text.mask)}
        return Fused(pooled=masked_mean(x, x_mask), tokens=x, mask=x_mask, attentions=attentions, **own)


@register("fusion", "co_attention")
class CoAttention(ProjectedFusion):
    """Co-attention: each side's tokens attend to the other's (ViLBERT, Lu et al. 2019).

    Args:
        dim: Width both are projected to; the result is twice as wide.
        num_layers: Number of co-attention layers.
        num_heads: Number of attention heads.
        dropout: Dropout within each layer.
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
        super().__init__(image_dim, text_dim, dim, num_features=2 * dim)
        self.image_layers, self.text_layers = (
            nn.ModuleList([CrossAttentionLayer(dim, num_heads, dropout=dropout) for _ in range(num_layers)])
            for _ in range(2)
        )
        self.image_norm, self.text_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> pooled (B, 2 dim), tokens (B, N + L, dim)."""
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        attentions = {}
        for i, (ask_text, ask_image) in enumerate(zip(self.image_layers, self.text_layers, strict=True)):
            (v, attentions[f"image_to_text.{i}"]), (t, attentions[f"text_to_image.{i}"]) = (
                ask_text(v, t, text.mask),
                ask_image(t, v, image.mask),
            )
        return side_by_side(self.image_norm(v), image.mask, self.text_norm(t), text.mask, attentions=attentions)
