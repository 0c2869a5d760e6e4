"""Training step with texts padded to the longest of the batch, compared with padding to 256 tokens.

Texts of 20-60 tokens, batched by the library's own collate. Budget: 3 times faster with BERT-base. With a text tower as
small as that of `mibf_lite0`, the image tower takes most of the time, and there is little to gain.
"""

from __future__ import annotations

import argparse
import random

import torch

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from timing import compare, device, machine

BUDGET = 3.0
FULL_LENGTH = 256
BUDGETED = "concat_resnet18"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", default=[BUDGETED, "mibf_lite0"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two repeats of a batch of 2: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.repeats = 2, 2

    rng = random.Random(0)
    processor = Processor(labels="abcdefg", image_size=224, tokenizer=fit_wordpiece(["any text"]))
    cases = [
        {
            "pixel_values": torch.randn(3, 224, 224),
            "image_present": True,
            "input_ids": [rng.randrange(5, 100) for _ in range(rng.randint(20, 60))],
            "text_present": True,
            "labels": index % 7,
            "index": index,
        }
        for index in range(options.batch_size)
    ]
    lengths = [len(case["input_ids"]) for case in cases]
    loss = mmfusion.create_loss("ce")

    print(f"{machine()}; batch {len(cases)}, 224 px, {min(lengths)}-{max(lengths)} tokens; training step")
    print(f"{'model':<18}{f'to {FULL_LENGTH} s':>10}{'dynamic s':>12}{'faster':>8}   budget {BUDGET} ({BUDGETED})")
    for name in options.model:
        model = mmfusion.create_model(name, num_classes=7).to(device()).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def step(
            multiple: int | None,
            model: torch.nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            batch = {key: value.to(device()) for key, value in processor.collate(cases, multiple).items()}
            labels = batch.pop("labels")
            del batch["index"]
            optimizer.zero_grad()
            loss(model(**batch), labels)["loss"].backward()
            optimizer.step()

        faster, full_time, dynamic_time = compare(lambda: step(FULL_LENGTH), lambda: step(None), options.repeats)
        verdict = "under" if name == BUDGETED and faster < BUDGET else ""
        print(f"{name:<18}{full_time:>10.3f}{dynamic_time:>12.3f}{faster:>8.2f}   {verdict}", flush=True)


if __name__ == "__main__":
    main()
