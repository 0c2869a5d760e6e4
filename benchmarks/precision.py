"""Training step in bf16 autocast with channels_last images, compared with plain fp32, together and separately."""

from __future__ import annotations

import argparse

import torch

import mmfusion
from mmfusion.hardware import resolve_precision
from timing import compare, device, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", default=["concat_resnet18", "mibf_resnet50", "mibf_lite0"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two repeats of a batch of 2: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.repeats = 2, 2

    size = options.batch_size
    pixels = torch.randn(size, 3, 224, 224, device=device())
    text = {
        "input_ids": torch.randint(1000, 2000, (size, options.tokens), device=device()),
        "attention_mask": torch.ones(size, options.tokens, dtype=torch.int64, device=device()),
    }
    labels = torch.arange(size, device=device()) % 7
    loss = mmfusion.create_loss("ce")

    levers = [("channels_last", False, True)]
    has_bf16 = resolve_precision("auto") == "bf16"
    if has_bf16:
        levers += [("bf16", True, False), ("bf16 + channels_last", True, True)]
    print(f"{machine()}; batch {size}, 224 px, {options.tokens} tokens; training step")
    if not has_bf16:
        print("This machine has no bf16 hardware; emulated bf16 would be slower, so it is not measured.")
    print(f"{'model':<18}{'lever':<22}{'fp32 s':>10}{'lever s':>10}{'faster':>8}")
    for name in options.model:
        for lever, bf16, channels_last in levers:
            plain = mmfusion.create_model(name, num_classes=7).to(device()).train()
            fast = mmfusion.create_model(name, num_classes=7).to(device()).train()
            memory_format = torch.channels_last if channels_last else torch.contiguous_format
            fast = fast.to(memory_format=memory_format)

            def step(model: torch.nn.Module, autocast: bool, images: torch.Tensor) -> None:
                model.zero_grad()
                with torch.autocast(device().type, torch.bfloat16, enabled=autocast):
                    output = model(pixel_values=images, **text)
                    total = loss(output, labels)["loss"]
                total.backward()

            images = pixels.to(memory_format=memory_format)
            faster, plain_time, fast_time = compare(
                lambda plain=plain: step(plain, False, pixels),
                lambda fast=fast, bf16=bf16, images=images: step(fast, bf16, images),
                options.repeats,
            )
            print(f"{name:<18}{lever:<22}{plain_time:>10.3f}{fast_time:>10.3f}{faster:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
