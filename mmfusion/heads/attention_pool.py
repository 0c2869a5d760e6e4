"""Attention-pooling head."""

import torch
from torch import nn

from mmfusion.heads.base import Head
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "attention_pool")
class AttentionPoolHead(Head):
    """Attention pooling of the fused tokens, h = sum softmax(q . k_i) v_i with a learned query, then a linear layer.

    Padded tokens get no weight. If the fusion block returns no tokens (``concat``), the pooled vector is the only
    token, and the head is two linear layers. The weights are ``attentions["attention_pool"]`` (B, 1, 1, N). As in Ilse
    et al. 2018, without their hidden gate.

    Args:
        hidden_features: Width of keys and values.
        dropout: Dropout before the linear layer.
        token_features: Width of the tokens; None uses ``in_features``. Models set it.

    Raises:
        ValueError: In the forward pass, if the tokens have another width.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_features: int = 256,
        dropout: float = 0.1,
        token_features: int | None = None,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.token_features = in_features if token_features is None else token_features
        self.query = nn.Parameter(torch.randn(hidden_features) * hidden_features**-0.5)
        self.k = nn.Linear(self.token_features, hidden_features)
        self.v = nn.Linear(self.token_features, hidden_features)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_features, num_classes)

    def classify(self, fused: Fused) -> FusionOutput:
        """Tokens (B, N, token_features) and their mask -> logits (B, C) and weights."""
        tokens, mask = fused.tokens, fused.mask
        if tokens is None:
            assert fused.pooled is not None
            tokens, mask = fused.pooled.unsqueeze(1), None
        if tokens.shape[-1] != self.token_features:
            raise ValueError(
                f"head 'attention_pool' got tokens of width {tokens.shape[-1]}, not {self.token_features}; "
                f"give it token_features={tokens.shape[-1]} (a fusion block declares it as its attribute)."
            )
        scores = self.k(tokens) @ self.query
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        h = torch.einsum("bn,bnd->bd", weights.to(tokens.dtype), self.v(tokens))
        return FusionOutput(logits=self.fc(self.dropout(h)), attentions={"attention_pool": weights[:, None, None, :]})
