"""Selective scan compared with other plain-torch scans: training step, batch 16, 256 channels, state 16.

Budget from L = 64: at least 1.5 times as fast as mambapy and transformers' fallback, and a block at least as fast as a
transformer layer; time and memory grow linearly in L. Peers are measured if they are installed (`pip install mambapy`).
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmfusion.layers import MambaBlock, selective_scan
from timing import compare, compute_clock, device, machine

BUDGET = 1.5
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def naive(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The recurrence with slices of each tensor per step, whose backward pass takes quadratic time."""
    decay, drive = torch.exp(delta.unsqueeze(-1) * A), (delta * u).unsqueeze(-1) * B.unsqueeze(2)
    state, outputs = 0, []
    for t in range(u.shape[1]):
        state = decay[:, t] * state + drive[:, t]
        outputs.append((state @ C[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, 1)


def mambapy() -> Scan:
    """mambapy's parallel scan, including its conversion from inputs to states and back."""
    pscan = importlib.import_module("mambapy.pscan").pscan

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        states = pscan(torch.exp(delta.unsqueeze(-1) * A), delta.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1))
        return (states @ C.unsqueeze(-1)).squeeze(-1)

    return scan


def transformers_fallback() -> Scan:
    """transformers' scan for machines without the fused kernel."""
    fallback = importlib.import_module("transformers.models.mamba.modeling_mamba").mamba_selective_scan

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        return fallback(*(x.transpose(1, 2) if x.ndim == 3 else x for x in (u, delta, A, B, C))).transpose(1, 2)

    return scan


def mambapy_block(dim: int, state: int) -> nn.Module:
    """mambapy's residual block of the same inner width."""
    package = importlib.import_module("mambapy.mamba")
    return package.ResidualBlock(package.MambaConfig(d_model=dim, n_layers=1, d_state=state, expand_factor=1, d_conv=3))


def transformers_block(dim: int, state: int) -> nn.Module:
    """transformers' block of the same inner width."""
    package = importlib.import_module("transformers.models.mamba.modeling_mamba")
    config = package.MambaConfig(hidden_size=dim, state_size=state, expand=1, conv_kernel=3, num_hidden_layers=1)
    return package.MambaBlock(config, layer_idx=0)


def training_step(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """Forward and backward, with gradients of every input."""

    def step() -> object:
        y = function(*inputs)
        return torch.autograd.grad(y, inputs, torch.ones_like(y))

    return step


def block_step(block: nn.Module, x: Tensor) -> Callable[[], object]:
    """Forward and backward, with gradients of the input and every parameter."""
    return training_step(lambda *inputs: block(inputs[0]), [x, *block.parameters()])


def saved_mib(function: Callable[..., Tensor], inputs: list[Tensor]) -> float:
    """Memory that the forward pass saves for the backward pass, including inputs."""
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = function(*inputs)
    del y
    return sum(seen.values()) / 2**20


def scan_inputs(batch: int, length: int, dim: int, state: int) -> list[Tensor]:
    """Random u, delta, A, B, C in the ranges of a trained layer."""
    u, delta = torch.randn(batch, length, dim), torch.rand(batch, length, dim) * 0.1
    A = -torch.arange(1.0, state + 1).repeat(dim, 1)
    B, C = torch.randn(batch, length, state), torch.randn(batch, length, state)
    return [x.to(device()).requires_grad_() for x in (u, delta, A, B, C)]


def report(name: str, length: int, ratio: float, theirs: float, ours: float, budget: float | None) -> None:
    """One line of the table."""
    verdict = "" if budget is None or ratio >= budget else "under"
    print(f"{name:<30}{length:>6}{theirs * 1e3:>12.1f}{ours * 1e3:>12.1f}{ratio:>8.2f}   {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[16, 64, 128, 256])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--state", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="batch of 2, two repeats, L to 64: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.repeats, options.lengths = 2, 2, [16, 64]
    batch, dim, state = options.batch_size, options.dim, options.state

    print(f"{machine()}; batch {batch}, {dim} channels, state {state}; forward + backward")
    print(f"{'peer':<30}{'L':>6}{'peer ms':>12}{'mmfusion ms':>12}{'times':>8}   budget {BUDGET}")
    scans: dict[str, Callable[[], Scan]] = {
        "scan: mambapy": mambapy,
        "scan: transformers": transformers_fallback,
        "scan: naive loop": lambda: naive,
    }
    blocks = {"block: mambapy": mambapy_block, "block: transformers": transformers_block}
    layer = nn.TransformerEncoderLayer(dim, 8, 2 * dim, dropout=0.0, norm_first=True, batch_first=True).to(device())
    block = MambaBlock(dim, state).to(device())
    for length in options.lengths:
        budget = BUDGET if length >= 64 else None
        inputs = scan_inputs(batch, length, dim, state)
        x = torch.randn(batch, length, dim, device=device(), requires_grad=True)
        pairs = [(name, make, training_step(selective_scan, inputs)) for name, make in scans.items()]
        pairs += [(name, make, block_step(block, x)) for name, make in blocks.items()]
        for name, make, ours in pairs:
            try:
                if name in scans:
                    theirs = training_step(make(), inputs)
                else:
                    theirs = block_step(make(dim, state).to(device()), x)
            except ImportError as error:
                print(f"{name:<30}{length:>6}   not measured: {error}")
                continue
            ratio, their_time, our_time = compare(theirs, ours, options.repeats, clock=compute_clock())
            report(name, length, ratio, their_time, our_time, None if "naive" in name else budget)
        steps = block_step(layer, x), block_step(block, x)
        ratio, their_time, our_time = compare(*steps, options.repeats, clock=compute_clock())
        report("block: transformer layer", length, ratio, their_time, our_time, 1.0 if length >= 64 else None)

    print(f"\n{'growth':<30}{'L':>6}{'time':>8}{'saved MiB':>12}{'naive MiB':>12}")
    first, base = options.lengths[0], training_step(selective_scan, scan_inputs(batch, options.lengths[0], dim, state))
    for length in options.lengths:
        inputs = scan_inputs(batch, length, dim, state)
        step = training_step(selective_scan, inputs)
        growth = compare(step, base, options.repeats, clock=compute_clock())[0] if length != first else 1.0
        ours, theirs = saved_mib(selective_scan, inputs), saved_mib(naive, inputs)
        name = f"L x {length / first:g}"
        print(f"{name:<30}{length:>6}{f'x {growth:.1f}':>8}{ours:>12.1f}{theirs:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
