"""Cost of a fusion model compared with its towers alone: forward + backward, ResNet-18, BERT-base, columns, batch 16.

Budget: 1.05.
"""

from __future__ import annotations

import argparse

import torch

import mmfusion
from timing import compare, compute_clock, device, machine

BUDGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fusion", nargs="*", default=mmfusion.list_components("fusion"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tables", nargs="*", default=["none", *mmfusion.list_components("table_tower")])
    parser.add_argument("--columns", type=int, default=50, help="numeric and categorical ones, half each")
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
    half = options.columns // 2
    columns = {"numeric": half, "categories": [8] * half, "bins": [32] * half}
    batch |= {
        "numeric_values": torch.randn(size, half, device=device()),
        "category_ids": torch.randint(0, 10, (size, half), device=device()),
    }
    labels = torch.arange(size, device=device()) % 7
    loss = mmfusion.create_loss("ce")

    print(f"{machine()}; batch {size}, 224 px, {options.tokens} tokens, {2 * half} columns; forward + backward")
    print(f"{'fusion':<18}{'table':<16}{'towers s':>10}{'model s':>10}{'ratio':>8}   budget {BUDGET}")
    for fusion in options.fusion:
        for table in options.tables:
            chosen = {} if table == "none" else {"table_encoder": table, "table_args": columns}
            model = (
                mmfusion.create_model("concat_resnet18", num_classes=7, fusion=fusion, **chosen).to(device()).train()
            )

            def whole(model: mmfusion.FusionModel = model) -> None:
                model.zero_grad()
                loss(model(**batch), labels)["loss"].backward()

            def towers(model: mmfusion.FusionModel = model) -> None:
                model.zero_grad()
                found = [tower(**tower.select(batch)).pooled.mean() for tower in model.towers.values()]
                sum(found).backward()

            ratio, model_time, towers_time = compare(whole, towers, options.repeats, clock=compute_clock())
            verdict = "" if ratio <= BUDGET else "over"
            print(
                f"{fusion:<18}{table:<16}{towers_time:>10.3f}{model_time:>10.3f}{ratio:>8.3f}   {verdict}", flush=True
            )


if __name__ == "__main__":
    main()
