"""Use of both modalities by fusion blocks trained on HAM10000: published IBFA, v2 and concatenation.

The text comes from metadata, EfficientNet-Lite0 is frozen (its features are computed once), a two-layer BERT starts
from random weights, and the loss is ``mp``. The output for each block: the median weight of the text in the attention
of the image query and the text query, the gradient norm of the text tower (first step, mean of the last ten), the
change of the probabilities when texts or images are exchanged between rows, and the AUROC on test lesions. DATA
contains `metadata.csv` and `images/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from transformers.optimization import get_cosine_schedule_with_warmup

import mmfusion
from mmfusion.data import CaseTable, DatasetConfig, MultimodalDataset, read_cases
from mmfusion.evaluation import classification_metrics, modality_sensitivity
from mmfusion.inference.predictor import Predictor
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig
from mmfusion.training.build import build_predictor
from mmfusion.training.weights import encoder_weights, tower_starts
from timing import machine

SYSTEMS: dict[str, dict[str, Any]] = {
    "ibfa, published": {"name": "mibf_lite0"},
    "ibfa, v2": {"name": "mibf_v2_lite0"},
    "concat": {"name": "mibf_v2_lite0", "fusion": "concat"},
}
COLUMNS = "{:18} {:>9} {:>9} {:>10} {:>9} {:>8} {:>8} {:>7}"

Rows = dict[str, Tensor]


def encoded(predictor: Predictor, cases: CaseTable) -> Rows:
    """Pooled image features, tokens and labels of all rows."""
    dataset = MultimodalDataset(cases, predictor.processor)
    model, kept = predictor.network().eval(), []
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size=64, collate_fn=predictor.processor.collate):
            kept.append((model.image_tower.encode(batch["pixel_values"])["pooled"], batch))
    length = max(batch["input_ids"].shape[1] for _, batch in kept)

    def joined(name: str) -> Tensor:
        return torch.cat([torch.nn.functional.pad(b[name], (0, length - b[name].shape[1])) for _, b in kept])

    rows = {name: joined(name) for name in ("input_ids", "attention_mask")}
    return rows | {"pooled": torch.cat([p for p, _ in kept]), "labels": torch.cat([b["labels"] for _, b in kept])}


def inputs_of(model: Any, rows: Rows, places: Tensor) -> dict[str, Any]:
    """Inputs of the model for some rows; the text is not cached, because its tower is trained."""
    text = model.text_tower.encode(rows["input_ids"][places], rows["attention_mask"][places])
    pooled = rows["pooled"][places]
    return {"image_features": {"pooled": pooled, "tokens": pooled[:, None]}, "text_features": text}


def train(model: Any, rows: Rows, epochs: int, lr: float) -> list[float]:
    """Train a model; returns the gradient norm of the text tower at every step, before clipping."""
    loss, count = mmfusion.create_loss("mp"), len(rows["labels"])
    optimizer = torch.optim.AdamW(model.param_groups(lr, 0.05, 0.3))
    steps = epochs * (count // 32)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    norms = []
    for places in (places for _ in range(epochs) for places in torch.randperm(count).split(32) if len(places) == 32):
        optimizer.zero_grad()
        loss(model(**inputs_of(model, rows, places)), rows["labels"][places])["loss"].backward()
        norms.append(get_total_norm([p.grad for p in model.text_tower.parameters() if p.grad is not None]).item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return norms


@torch.no_grad()
def described(model: Any, rows: Rows, norms: list[float], labels: list[str]) -> Iterator[str]:
    """The cells of one line."""
    everything = torch.arange(len(rows["labels"]))
    output = model.eval()(**inputs_of(model, rows, everything))
    weights = output.attentions or {}
    for name, text in (("image_to_both", 1), ("text_to_both", 0)):
        yield f"{weights[name][..., text].median().item():.1e}" if name in weights else ""
    yield f"{norms[0]:.2g}"
    yield f"{sum(norms[-10:]) / 10:.2g}"
    batches = (inputs_of(model, rows, places) for places in everything[torch.randperm(len(everything))].split(64))
    moved = modality_sensitivity(model, batches)
    yield f"{moved['text']:.4f}"
    yield f"{moved['image']:.4f}"
    figures = classification_metrics(rows["labels"].numpy(), output.logits.double().softmax(-1).numpy(), labels)
    yield f"{figures['macro_auroc']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()

    dataset = DatasetConfig(
        table="metadata.csv",
        image_root="images",
        text_template="{age}-year-old {sex}, lesion on the {localization}",
        group_column="lesion_id",
        val_fraction=0.0001,
        test_fraction=1 / 3,
    )
    cases = read_cases(options.data, dataset)
    drawn = cases.frame.sample(n=min(options.rows, len(cases)), random_state=0)
    cases = CaseTable(drawn, cases.image_root, source=cases.source).split_or_draw(dataset)
    print(f"{machine()}; rows: {cases.splits}, {options.size} px, {options.epochs} epochs, lr {options.lr:g}")
    print(COLUMNS.format("", "text, img", "text, txt", "grad first", "grad last", "text", "image", "AUROC"))
    features: dict[str, Rows] = {}
    for seed in range(options.seeds):
        for name, parts in SYSTEMS.items():
            model_config = ModelConfig(encoder_weights="default", **parts)
            processor = ProcessorConfig(image_size=options.size, augment="none", max_length=32)
            config = RunConfig(options.data, dataset=dataset, model=model_config, processor=processor)
            torch.manual_seed(seed)
            made = {"table": None, "weights": encoder_weights(tower_starts(config)), "provenance": {}, "card": {}}
            predictor = build_predictor(config, cases, aux_heads=True, **made)
            model: Any = predictor.network()
            for split in ("train", "test"):
                if split not in features:
                    features[split] = encoded(predictor, cases.select(split))
            model.freeze_encoders(text=False)
            torch.manual_seed(seed)
            norms = train(model.train(), features["train"], options.epochs, options.lr)
            print(COLUMNS.format(name, *described(model, features["test"], norms, cases.labels)), flush=True)


if __name__ == "__main__":
    main()
