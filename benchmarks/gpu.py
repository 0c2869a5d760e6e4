"""Training speed on a GPU: bf16, channels_last and torch.compile, and each model family compared with its raw towers.

Samples per second of a training step (forward, backward, AdamW) with random weights and inputs. Without a GPU nothing
is measured, and one line says so. `--quick` measures two models in about a minute; all of them take about ten.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import nn

import mmfusion
from timing import machine

#: plain, then each option added to those before it: bf16, channels_last, compile.
LEVERS = {
    "fp32": (False, False, False),
    "+ bf16": (True, False, False),
    "+ channels_last": (True, True, False),
    "+ compile": (True, True, True),
}
FAMILIES = ("concat_resnet18", "cross_attention_resnet18", "ibfa_resnet18", "mibf_resnet50", "hier_lite0", "moe_lite0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", default=list(FAMILIES), choices=mmfusion.list_models())
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each step is measured")
    parser.add_argument("--quick", action="store_true", help="two models: a check that it runs")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU found: nothing measured")
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    size, seconds = options.batch_size, options.seconds
    print(f"{machine()}; batch {size}, {options.image_size} px, 64 tokens; samples per second, warm-up in seconds")
    print(f"{'model':<28}{'how':<18}{'model':>8}{'towers':>9}{'ratio':>7}{'warm-up':>9}")
    for name in options.model[:2] if options.quick else options.model:
        for how, levers in LEVERS.items():
            torch.compiler.reset()
            model = mmfusion.create_model(name, num_classes=7).cuda()
            x = torch.randn(size, 3, options.image_size, options.image_size, device="cuda")
            ids = torch.randint(5, 100, (size, 64), device="cuda")
            inputs = {"pixel_values": x, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            ours, warm = throughput(model, lambda m=model, i=inputs: m(**i).logits.float(), inputs, levers, seconds)
            theirs, _ = throughput(model, lambda m=model, i=inputs: towers(m, i), inputs, levers, seconds)
            print(f"{name:<28}{how:<18}{ours:>8.0f}{theirs:>9.0f}{ours / theirs:>7.2f}{warm:>9.1f}", flush=True)


def towers(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the pooled vectors of the image and the text tower."""
    image = model.image_tower(inputs["pixel_values"]).pooled
    text = model.text_tower(inputs["input_ids"], attention_mask=inputs["attention_mask"]).pooled
    return image.float().mean() + text.float().mean()


def throughput(
    model: nn.Module,
    forward: Callable[[], torch.Tensor],
    inputs: dict[str, torch.Tensor],
    levers: tuple[bool, bool, bool],
    seconds: float,
) -> tuple[float, float]:
    """Samples per second of a training step, and the seconds of the first three."""
    half, channels_last, compiled = levers
    if channels_last:
        model.to(memory_format=torch.channels_last)
        inputs["pixel_values"] = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
    call = torch.compile(forward) if compiled else forward
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16) if half else contextlib.nullcontext():
            loss = call().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    start = time.perf_counter()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    warm, count, start = time.perf_counter() - start, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        torch.cuda.synchronize()
        count += 1
    return count * len(inputs["pixel_values"]) / (time.perf_counter() - start), warm


if __name__ == "__main__":
    main()
