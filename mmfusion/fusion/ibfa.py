"""MIBF-Net's interactive bidirectional fusion by attention (report section 6, eq. 13-14)."""

from typing import Literal

from torch import nn

from mmfusion.fusion.base import FusionBlock, side_by_side
from mmfusion.layers import JointAttention
from mmfusion.names import check_choice
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "ibfa")
class IBFA(FusionBlock):
    """F = [Attn(I, T); Attn(T, I)], each side's query attending to both sides' keys and values (MIBF-Net).

    Args:
        text_dim: Width of the text features; projected only where it differs from ``dim`` (BERT's 768 enters as is).
        dim: Width of the attention; the result is twice as wide.
        num_heads: Attention heads (1 in the publication).
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
        check_choice("form", form, ("pooled", "token"))
        super().__init__(num_features=2 * dim, side_dims=(dim, dim))
        self.token_features = dim
        self.form = form
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
        self.image_attention, self.text_attention = JointAttention(dim, num_heads), JointAttention(dim, num_heads)

    def forward(self, image: Features, text: Features) -> Fused:
        """Both towers' features -> pooled (B, 2 dim); the two halves are what the auxiliary heads classify."""
        if self.form == "pooled":
            image, text = (Features(side.pooled[:, None], side.pooled) for side in (image, text))
        v, t = self.image_proj(image.tokens), self.text_proj(text.tokens)
        image_out, image_weights = self.image_attention(v, t, image.mask, text.mask)
        text_out, text_weights = self.text_attention(t, v, text.mask, image.mask)
        attentions = {"image_to_both": image_weights, "text_to_both": text_weights}
        return side_by_side(image_out, image.mask, text_out, text.mask, attentions=attentions)
