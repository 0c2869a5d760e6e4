"""Interactive bidirectional fusion by attention (MIBF-Net)."""

from typing import Literal

from torch import nn

from mmfusion.fusion.base import FusionBlock, side_by_side
from mmfusion.layers import JointAttention, masked_mean
from mmfusion.names import check_choice
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "ibfa")
class IBFA(FusionBlock):
    """Bidirectional fusion F = [Attn(I, T); Attn(T, I)]: each side's query attends to both sides' keys and values
    (MIBF-Net).

    The defaults are the published block. In training it usually collapses to one side: the scores of the softmax over
    both sides are unbounded, and the side with a small weight gets no gradient. ``residual``, ``auxiliary="own"`` and
    ``max_logit=4`` prevent this (docs/parts/mibf.md).

    Args:
        image_dim: Width of the image features.
        text_dim: Width of the text features; projected only if it differs from ``dim``.
        dim: Width of the attention; the result is twice as wide.
        num_heads: Attention heads (1 in the publication).
        form: ``pooled`` is the published model, one vector per side; ``token`` attends over map positions and text
            tokens.
        residual: Add each side's own projected features to its attention's output, I + Attn(I, T) and T + Attn(T, I).
        auxiliary: What the auxiliary heads classify. ``fused`` is the published model: the attention's output of each
            side's query, which depends on both sides. ``own`` is each side's projected features before the attention
            (their mean over valid tokens), so that the logits depend on that side only.
        max_logit: Bound of the attention scores; None is the published, unbounded attention (see
            :class:`~mmfusion.layers.JointAttention`).

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 768,
        num_heads: int = 1,
        form: Literal["pooled", "token"] = "pooled",
        residual: bool = False,
        auxiliary: Literal["fused", "own"] = "fused",
        max_logit: float | None = None,
    ) -> None:
        check_choice("form", form, ("pooled", "token"))
        check_choice("auxiliary", auxiliary, ("fused", "own"))
        super().__init__(num_features=2 * dim, side_dims=(dim, dim))
        self.token_features = dim
        self.form, self.residual, self.auxiliary = form, residual, auxiliary
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
        self.image_attention = JointAttention(dim, num_heads, max_logit)
        self.text_attention = JointAttention(dim, num_heads, max_logit)

    def forward(self, image: Features, text: Features) -> Fused:
        """Both sides' features -> pooled (B, 2 dim), and what the auxiliary heads classify (B, dim) each."""
        if self.form == "pooled":
            image, text = (Features(side.pooled[:, None], side.pooled) for side in (image, text))
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        image_out, image_weights = self.image_attention(v, t, image.mask, text.mask)
        text_out, text_weights = self.text_attention(t, v, text.mask, image.mask)
        if self.residual:
            image_out, text_out = v + image_out, t + text_out
        attentions = {"image_to_both": image_weights, "text_to_both": text_weights}
        fused = side_by_side(image_out, image.mask, text_out, text.mask, attentions=attentions)
        if self.auxiliary == "own":
            return fused.replace(image=masked_mean(v, image.mask), text=masked_mean(t, text.mask))
        return fused
