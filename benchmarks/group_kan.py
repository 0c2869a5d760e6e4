"""KAN layers compared with a Linear of the same widths: forward + backward, 768 -> 256, batch 1024.

Budget: 3 for the B-spline, 2.5 for the rational function and for Chebyshev polynomials. Also measured: a spline per
edge, as in efficient-kan, and pykan if it is installed (at a batch of 256, because it is slow).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers import GroupKANLinear, bspline_basis
from timing import compare, compute_clock, device, machine

BUDGETS = {"bspline": 3.0, "rational": 2.5, "rational, degree 5": 2.5, "chebyshev": 2.5}


class EdgeKANLinear(nn.Module):
    """One spline per edge: y_o = sum_i (w_oi silu(x_i) + sum_k c_oik B_k(x_i))."""

    def __init__(self, in_features: int, out_features: int, grid_size: int = 5, degree: int = 3) -> None:
        super().__init__()
        self.degree = degree
        step = 8 / grid_size
        self.register_buffer("knots", -4 + step * torch.arange(-degree, grid_size + degree + 1))
        self.base = nn.Linear(in_features, out_features)
        self.spline = nn.Linear(in_features * (grid_size + degree), out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(F.silu(x)) + self.spline(bspline_basis(x, self.knots, self.degree).flatten(1))


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], None]:
    """Forward and backward of a layer, with gradients of its input and parameters."""
    x = x.clone().requires_grad_()

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(grad)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[32, 1024])
    parser.add_argument("--in-features", type=int, default=768)
    parser.add_argument("--out-features", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="two repeats of a batch of 32: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.repeats = [32], 2
    if options.threads:
        torch.set_num_threads(options.threads)

    width, out = options.in_features, options.out_features
    layers: dict[str, Callable[[], nn.Module]] = {
        "bspline": lambda: GroupKANLinear(width, out),
        "bspline, grid 20": lambda: GroupKANLinear(width, out, grid_size=20),
        "rational": lambda: GroupKANLinear(width, out, basis="rational"),
        "rational, degree 5": lambda: GroupKANLinear(width, out, basis="rational", degree=5),
        "chebyshev": lambda: GroupKANLinear(width, out, basis="chebyshev"),
        "rbf": lambda: GroupKANLinear(width, out, basis="rbf"),
        "spline per edge": lambda: EdgeKANLinear(width, out),
    }
    if importlib.util.find_spec("kan") is not None:
        layers["pykan"] = lambda: importlib.import_module("kan").KAN([width, out], grid=5, k=3, device=str(device()))

    print(f"{machine()}; {width} -> {out}, forward + backward")
    print(f"{'batch':>6}  {'layer':<20}{'parameters':>12}{'ms':>10}{'Linear ms':>11}{'ratio':>8}{'budget':>8}")
    for size in options.batch_size:
        for name, build in layers.items():
            rows = min(size, 256) if name == "pykan" else size
            x, grad = torch.randn(rows, width, device=device()), torch.randn(rows, out, device=device())
            layer, linear = build().to(device()), nn.Linear(width, out, device=device())
            repeats = min(options.repeats, 3) if name == "pykan" else options.repeats
            ratio, ours, theirs = compare(step(layer, x, grad), step(linear, x, grad), repeats, 2, compute_clock())
            count = sum(parameter.numel() for parameter in layer.parameters())
            budget = BUDGETS.get(name)
            verdict = "" if budget is None else f"{budget:>8.1f}{'  over' if ratio > budget else ''}"
            row = f"{rows:>6}  {name:<20}{count:>12,}{ours * 1e3:>10.2f}{theirs * 1e3:>11.2f}{ratio:>8.2f}{verdict}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
