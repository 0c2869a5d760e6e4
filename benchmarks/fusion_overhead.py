"""What a fusion model costs beyond its two towers: forward + backward, ResNet-18 and BERT-base, batch 16.

Budget: 1.05.
"""

from __future__ import annotations

import argparse

import torch

import mmfusion
from timing import compare, device, machine

BUDGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fusion", nargs="*", default=mmfusion.list_components("fusion"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two repeats of a batch of 2: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.repeats = 2, 2

    size = options.batch_size
    batch = {
        "pixel_values": torch.randn(size, 3, 224, 224, device=device()),
        "input_ids": torch.randint(1000, 2000, (size, options.tokens), device=device()),
        "attention_mask": torch.ones(size, options.tokens, dtype=torch.int64, device=device()),
    }
    labels = torch.arange(size, device=device()) % 7
    loss = mmfusion.create_loss("ce")

    print(f"{machine()}; batch {size}, 224 px, {options.tokens} tokens; forward + backward")
    print(f"{'fusion':<18}{'towers s':>10}{'model s':>10}{'ratio':>8}   budget {BUDGET}")
    for fusion in options.fusion:
        model = mmfusion.create_model("concat_resnet18", num_classes=7, fusion=fusion).to(device()).train()

        def whole(model: torch.nn.Module = model) -> None:
            model.zero_grad()
            loss(model(**batch), labels)["loss"].backward()

        def towers(model: torch.nn.Module = model) -> None:
            model.zero_grad()
            image = model.image_tower(batch["pixel_values"])
            text = model.text_tower(batch["input_ids"], batch["attention_mask"])
            (image.pooled.mean() + text.pooled.mean()).backward()

        ratio, model_time, towers_time = compare(whole, towers, options.repeats)
        verdict = "" if ratio <= BUDGET else "over"
        print(f"{fusion:<18}{towers_time:>10.3f}{model_time:>10.3f}{ratio:>8.3f}   {verdict}", flush=True)


if __name__ == "__main__":
    main()
