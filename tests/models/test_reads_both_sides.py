"""IBFA trained on two sides with different information, the first one ten times as large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import mmfusion
from mmfusion.evaluation import modality_sensitivity
from mmfusion.training.unread import UNREAD


def drawn(model: Any, rows: int) -> tuple[dict[str, Any], Tensor]:
    """Features of three classes that each side determines in part, and both together better."""
    labels = torch.randint(3, (rows,))

    def vectors(width: int) -> Tensor:
        return 2 * torch.eye(3, width)[labels] + torch.randn(rows, width) * (torch.arange(width) < 6)

    image = 5 * vectors(model.image_tower.num_features)
    text = 1 + vectors(model.text_tower.num_features)
    real = torch.ones(rows, 1, dtype=torch.bool)
    return {
        "image_features": {"pooled": image, "tokens": image[:, None]},
        "text_features": {"pooled": text, "tokens": text[:, None], "mask": real},
    }, labels


def trained(**fusion_args: Any) -> tuple[dict[str, float], dict[str, Tensor], float]:
    """Change of the probabilities by each side after 60 steps, attention weights, and accuracy."""
    torch.manual_seed(0)
    model = mmfusion.create_model("test_mibf", num_classes=3, fusion_args=fusion_args, dim=16, aux_hidden=8)
    parts = (model.fusion, model.head, model.aux_heads)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=0.02)
    loss = mmfusion.create_loss("mp")
    for _ in range(60):
        inputs, labels = drawn(model, 64)
        optimizer.zero_grad()
        loss(model(**inputs), labels)["loss"].backward()
        optimizer.step()
    inputs, labels = drawn(model.eval(), 512)
    output = model(**inputs)
    accuracy = (output.logits.argmax(-1) == labels).double().mean().item()
    return modality_sensitivity(model, [inputs]), output.attentions, accuracy


def test_the_published_form_shuts_the_second_side_out_and_v2_reads_both() -> None:
    published, weights, accuracy = trained()
    assert published["text"] < UNREAD and published["image"] > 0.3
    assert weights["image_to_both"][..., 1].median() < 1e-3 > weights["text_to_both"][..., 0].median()

    v2, weights, better = trained(residual=True, auxiliary="own", max_logit=4)
    assert v2["text"] > 0.1 and v2["image"] > 0.1
    assert min(w.min() for w in weights.values()) > 1e-4, "1 / (1 + exp(8)) is the least"
    assert better > accuracy + 0.03
