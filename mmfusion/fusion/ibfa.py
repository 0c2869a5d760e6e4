"""MIBF-Net's interactive bidirectional fusion by attention (report section 6, eq. 13-14)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mmfusion.fusion.base import FusionBlock
from mmfusion.layers import JointAttention, masked_mean
from mmfusion.layers.attention import join_masks
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "ibfa")
class IBFA(FusionBlock):
    """F = [Attn(I, T); Attn(T, I)], each side's query attending to both sides' keys and values (MIBF-Net).

    Args:
        image_dim: width of the image features.
        text_dim: width of the text features; projected only where it differs from ``dim`` (BERT's 768 enters as is).
        dim: width of the attention; the result is twice as wide.
        num_heads: attention heads (1 in the publication).
        form: ``pooled`` is the published model, one vector per side; ``token`` attends over map positions and text
            tokens.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 768,
        num_heads: int = 1,
        form: Literal["pooled", "token"] = "pooled",
    ) -> None:
        if form not in ("pooled", "token"):
            raise ValueError(f"form={form!r} is not one of 'pooled', 'token'.")
        super().__init__(num_features=2 * dim, side_dims=(dim, dim))
        self.token_features = dim
        self.form = form
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
        self.image_attention = JointAttention(dim, num_heads)
        self.text_attention = JointAttention(dim, num_heads)

    def forward(self, image: Features, text: Features) -> Fused:
        """Both towers' features -> pooled (B, 2 dim); the two halves are what the auxiliary heads classify."""
        if self.form == "pooled":
            v, t = self.image_proj(image.pooled)[:, None], self.text_proj(text.pooled)[:, None]
            v_mask = t_mask = None
        else:
            v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
            v_mask, t_mask = image.mask, text.mask
        image_out, image_weights = self.image_attention(v, t, v_mask, t_mask)
        text_out, text_weights = self.text_attention(t, v, t_mask, v_mask)
        image_pooled, text_pooled = masked_mean(image_out, v_mask), masked_mean(text_out, t_mask)
        return Fused(
            pooled=torch.cat([image_pooled, text_pooled], dim=-1),
            tokens=torch.cat([image_out, text_out], dim=1),
            mask=join_masks(v, v_mask, t, t_mask),
            image=image_pooled,
            text=text_pooled,
            attentions={"image_to_both": image_weights, "text_to_both": text_weights},
        )
