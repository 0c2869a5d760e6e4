"""Base class of aggregators."""

from abc import abstractmethod

from torch import Tensor, nn

from mmfusion.outputs import Features


class Aggregator(nn.Module):
    """Base class of aggregators: slice features in, contextual tokens and one vector out.

    Absent slices may be anywhere in the sequence. They are skipped: neither their content nor their number affects the
    result, and the position of a slice is its rank among the present ones. Their own tokens are zeros. A study without
    any slice gives zeros.

    A custom aggregator only needs ``__init__(in_features)``, ``forward(x, mask)`` and ``num_features``; a subclass of
    this class that implements :meth:`aggregate` follows the rules above.

    Attributes:
        num_features: Width of the tokens and of the pooled vector.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Features:
        """Aggregate a batch of studies.

        Args:
            x: (B, S, D), one vector per slice.
            mask: (B, S) bool, True for present slices; None if all are present.

        Returns:
            tokens (B, S, num_features), pooled (B, num_features), the mask, and attentions if there are any.

        Raises:
            ValueError: x is not a sequence, or the mask does not match it.
        """
        if x.ndim != 3:
            raise ValueError(f"An aggregator takes x (B, S, D), got {tuple(x.shape)}.")
        if mask is None:
            return self.aggregate(x, None)
        if mask.shape != x.shape[:2]:
            raise ValueError(f"A mask of {tuple(mask.shape)} does not match x of {tuple(x.shape)}; it must be (B, S).")
        mask = mask.bool()
        features = self.aggregate(x.masked_fill(~mask.unsqueeze(-1), 0), mask)
        assert features.tokens is not None and features.pooled is not None
        return Features(
            tokens=features.tokens.masked_fill(~mask.unsqueeze(-1), 0),
            pooled=features.pooled.masked_fill(~mask.any(dim=1, keepdim=True), 0),
            mask=mask,
            attentions=features.attentions,
        )

    @abstractmethod
    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        """x (B, S, D), zeros at absent slices, and the mask -> tokens and pooled."""
