"""Lesion and context: a whole image and a region of it."""

from typing import Any

from mmfusion.models.architecture import LITE0, RESNET50, arch

GLOBAL_LOCAL: dict[str, Any] = {"image_tower": "global_local", "fusion": "concat"}
# the head weights the streams, so the tower does not
BOTH: dict[str, Any] = {"image_args": {"combine": "mean"}, "head": "dual_expert", "head_args": {"gate": "both"}}
DUAL_EXPERT = GLOBAL_LOCAL | BOTH
LESION_CONTEXT = GLOBAL_LOCAL | {"image_args": {"combine": "gated"}, "head": "moe"}

for name, keywords, resnet50, lite0 in (
    (
        *("global_local", GLOBAL_LOCAL),
        "Two streams on one ResNet-50, weighted by a learned share; BERT-base.",
        "Two streams on EfficientNet-Lite0 and a two-layer BERT.",
    ),
    (
        *("dual_expert", DUAL_EXPERT),
        "A lesion expert and a context expert on ResNet-50 and BERT-base, weighted by a learned and an entropy gate.",
        "Lesion and context experts on EfficientNet-Lite0 and a two-layer BERT.",
    ),
    (
        *("lesion_context", LESION_CONTEXT),
        "Lesion and context of ResNet-50 joined by a gate per dimension, BERT-base, and a mixture of experts.",
        "Gated lesion and context with a mixture of experts on EfficientNet-Lite0 and a two-layer BERT.",
    ),
):
    arch(f"{name}_resnet50", resnet50, RESNET50, keywords)
    arch(f"{name}_lite0", lite0, LITE0, keywords)
