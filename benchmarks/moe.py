"""Mixture-of-experts head compared with one of its experts: forward + backward, 768 -> 256 -> 7, top 2.

Budget: 4 for top-2-of-8. Both ways of running the experts are measured, and the one that the layer chooses by size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mmfusion
from mmfusion.layers import Mlp
from timing import compare, compute_clock, device, machine

BUDGET = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[32, 128, 256, 1024])
    parser.add_argument("--experts", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--in-features", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="two repeats of a batch of 32: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.experts, options.repeats = [32], [4], 2
    if options.threads:
        torch.set_num_threads(options.threads)

    width = options.in_features
    print(f"{machine()}; {width} -> 256 -> 7, top 2, forward + backward")
    print(f"{'batch':>6}{'experts':>9}  {'way':<10}{'ms':>10}{'expert ms':>11}{'ratio':>8}{'budget':>8}")
    for size in options.batch_size:
        x = torch.randn(size, width, device=device())
        for count in options.experts:
            head = mmfusion.create_head("moe", in_features=width, num_classes=7, num_experts=count).to(device())
            expert = Mlp(width, 256, 7, dropout=0.1).to(device())
            experts = head.experts
            for way, ask in (("chosen", experts.forward), ("all", experts.ask_all), ("sorted", experts.ask_chosen)):
                ratio, ours, theirs = compare(
                    step(lambda x, ask=ask, head=head: mixture(head, ask, x), head, x),
                    step(expert, expert, x),
                    options.repeats,
                    warmup=2,
                    clock=compute_clock(),
                )
                verdict = (
                    f"{BUDGET:>8.1f}{'  over' if ratio > BUDGET else ''}" if way == "chosen" and count == 8 else ""
                )
                row = f"{size:>6}{count:>9}  {way:<10}{ours * 1e3:>10.2f}{theirs * 1e3:>11.2f}{ratio:>8.2f}{verdict}"
                print(row, flush=True)


def mixture(head: nn.Module, ask: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Logits of the head with a given way of running the experts."""
    weights, experts, _ = head.router(x)
    return ask(x, weights, experts)


def step(call: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward to the input and the parameters of a module."""
    x = x.clone().requires_grad_()

    def run() -> None:
        module.zero_grad()
        x.grad = None
        call(x).square().sum().backward()

    return run


if __name__ == "__main__":
    main()
