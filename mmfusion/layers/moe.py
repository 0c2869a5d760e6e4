"""Sparse mixture of experts: a router that selects a few experts per sample, and two-layer experts."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmfusion.layers.precision import at_least_float32

#: Number of pairs of a row and an unselected expert above which grouping rows by expert is faster than running every
#: expert (benchmarks/moe.py: faster by a third at 32 rows and 8 experts, slower by a fifth at 8 rows and 4 experts).
SORT_FROM = 48


class Routing(NamedTuple):
    """Output of a router for B samples.

    Attributes:
        weights: (B, k) weight of each selected expert.
        experts: (B, k) int64 indices of the selected experts, the most probable first.
        probs: (B, K) full softmax.
    """

    weights: Tensor
    experts: Tensor
    probs: Tensor


class TopKRouter(nn.Module):
    """Top-k router: g = softmax(W_g x), keeping the k largest (Shazeer et al. 2017).

    The kept weights are normalized to sum to one. With ``top_k=1`` the weight is g itself, as in the Switch transformer
    (Fedus et al. 2022): normalized, it would be constant, and the router would get no gradient.

    Args:
        in_features: D.
        num_experts: K.
        top_k: Number of experts per sample, at most K.

    Raises:
        ValueError: ``top_k`` is not between 1 and ``num_experts``.
    """

    def __init__(self, in_features: int, num_experts: int = 4, top_k: int = 2) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k={top_k} is not between 1 and num_experts={num_experts}.")
        self.num_experts, self.top_k = num_experts, top_k
        self.gate = nn.Linear(in_features, num_experts, bias=False)

    def forward(self, x: Tensor) -> Routing:
        """(B, D) -> weights and indices of the selected experts, and all probabilities."""
        probs = at_least_float32(self.gate(x)).softmax(dim=-1)
        weights, experts = probs.topk(self.top_k, dim=-1)
        if self.top_k > 1:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routing(weights, experts, probs)


class Experts(nn.Module):
    """K perceptrons, Linear - ReLU - dropout - Linear; each sample uses a few of them.

    Small batches run every expert, in two wide products, with weight 0 for unselected ones; large batches are sorted by
    expert, and each expert processes only its own rows. Both give the same result.

    Args:
        num_experts: K.
        in_features: D.
        hidden_features: Hidden width of each expert.
        out_features: Width of the output.
        dropout: Dropout after the ReLU.
    """

    def __init__(
        self, num_experts: int, in_features: int, hidden_features: int, out_features: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.dropout = dropout
        self.weight1 = nn.Parameter(torch.empty(num_experts, hidden_features, in_features))
        self.bias1 = nn.Parameter(torch.empty(num_experts * hidden_features))
        self.weight2 = nn.Parameter(torch.empty(num_experts, out_features, hidden_features))
        self.bias2 = nn.Parameter(torch.empty(num_experts * out_features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize each expert like ``nn.Linear``."""
        for weight, bias in ((self.weight1, self.bias1), (self.weight2, self.bias2)):
            bound = weight.shape[-1] ** -0.5
            weight.uniform_(-bound, bound)
            bias.uniform_(-bound, bound)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Weighted sum (B, out_features) of the selected experts' outputs for x (B, in_features); see `Routing`."""
        if torch.compiler.is_compiling() or len(x) * (self.num_experts - experts.shape[1]) < SORT_FROM:
            return self.ask_all(x, weights, experts)
        return self.ask_chosen(x, weights, experts)

    def ask_all(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Run every expert on every row, as one perceptron K times as wide with hidden units scaled by the weights."""
        count = self.num_experts
        shares = torch.zeros(x.shape[0], count, dtype=weights.dtype, device=x.device).scatter(1, experts, weights)
        hidden = self._drop(F.linear(x, self.weight1.flatten(0, 1), self.bias1).relu())
        shares = shares.to(hidden.dtype)
        scaled = (hidden.unflatten(1, (count, -1)) * shares.unsqueeze(2)).flatten(1)
        return F.linear(scaled, self.weight2.transpose(0, 1).flatten(1)) + shares @ self.bias2.view(count, -1)

    def ask_chosen(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Run each expert on its own rows; the cost is that of k experts and the sorting."""
        order = experts.flatten().argsort()
        rows = order // experts.shape[1]
        counts = experts.flatten().bincount(minlength=self.num_experts).tolist()
        hidden = self._drop(grouped_linear(x.index_select(0, rows), self.weight1, self.bias1, counts).relu())
        answers = grouped_linear(hidden, self.weight2, self.bias2, counts)
        shares = weights.flatten().index_select(0, order).to(answers.dtype).unsqueeze(1)
        return answers.new_zeros(len(x), answers.shape[1]).index_add(0, rows, answers * shares)

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)

    def extra_repr(self) -> str:
        count, hidden, width = self.weight1.shape
        return f"num_experts={count}, {width} -> {hidden} -> {self.weight2.shape[1]}, dropout={self.dropout}"


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
    """Apply K linear layers to consecutive groups of rows: the first layer to the first ``counts[0]`` rows, and so on.

    Args:
        x: (N, in).
        weight: (K, out, in).
        bias: (K out).
        counts: Number of rows of each of the K layers; they sum to N.

    Returns:
        (N, out), in autocast's type if autocast is enabled.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    return _GroupedLinear.apply(x, weight, bias.view(len(weight), -1), counts)


class _GroupedLinear(torch.autograd.Function):
    """Products that write into slices of the result; autograd would copy each layer's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(len(x), weight.shape[1])
        for w, b, own, out in zip(weight.mT, bias, x.split(counts), y.split(counts), strict=True):
            torch.addmm(b, own, w, out=out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight = torch.empty_like(weight)
        grads = grad.split(ctx.counts)
        for dw, own, g in zip(dweight, x.split(ctx.counts), grads, strict=True):
            torch.mm(g.T, own, out=dw)
        if dx is not None:
            for w, out, g in zip(weight, dx.split(ctx.counts), grads, strict=True):
                torch.mm(g, w, out=out)
        layer = torch.repeat_interleave(torch.tensor(ctx.counts, device=grad.device), output_size=len(grad))
        return dx, dweight, grad.new_zeros(weight.shape[:2]).index_add_(0, layer, grad), None


def balance_loss(router_probs: Tensor) -> Tensor:
    """L_bal = sum_k (mean_i g_ik - 1/K)^2, zero if the mean probabilities are equal.

    It depends on the mean probabilities, not on the number of samples per expert: mean probabilities (.26, .26, .24,
    .24) with all samples sent to the first two give 0.0004. :func:`switch_balance_loss` depends on both.

    Args:
        router_probs: (B, K), rows that sum to one.

    Returns:
        Scalar, at most 1 - 1/K.
    """
    return (router_probs.mean(dim=0) - 1 / router_probs.shape[1]).square().sum()


def switch_balance_loss(router_probs: Tensor, top_k: int = 1) -> Tensor:
    """L = K sum_k f_k P_k, f_k the load of expert k, P_k its mean probability (Fedus et al. 2022, eq. 4-6).

    f_k is a share of the B samples. With several experts per sample, as in Mixtral, each of them counts, and the f_k
    sum to ``top_k``.

    Args:
        router_probs: (B, K), rows that sum to one.
        top_k: Number of experts per sample, the most probable ones.

    Returns:
        Scalar: ``top_k`` if samples and probabilities are spread evenly, K if all samples select the same experts with
        all the probability. The gradient flows only through the probabilities.
    """
    chosen = router_probs.topk(top_k, dim=-1).indices
    samples = torch.zeros_like(router_probs).scatter(1, chosen, 1.0)
    return router_probs.shape[1] * (samples.mean(dim=0) * router_probs.mean(dim=0)).sum()
