"""Lesion and context: a whole image and a region of it (report section 2.6.2, eq. 15-18)."""

from typing import Any

from mmfusion.models.architecture import LITE0, RESNET50, arch

GLOBAL_LOCAL: dict[str, Any] = {"image_tower": "global_local", "fusion": "concat"}
# the head weighs the streams, so the tower leaves them alike
DUAL_EXPERT: dict[str, Any] = GLOBAL_LOCAL | {
    "image_args": {"combine": "mean"},
    "head": "dual_expert",
    "head_args": {"gate": "both"},
}
LESION_CONTEXT: dict[str, Any] = GLOBAL_LOCAL | {"image_args": {"combine": "gated"}, "head": "moe"}

arch(
    "global_local_resnet50",
    "Two streams on one ResNet-50, weighted by a learned share; BERT-base.",
    **RESNET50,
    **GLOBAL_LOCAL,
)
arch(
    "dual_expert_resnet50",
    "A lesion expert and a context expert on ResNet-50 and BERT-base, weighed by a learned and an entropy gate.",
    **RESNET50,
    **DUAL_EXPERT,
)
arch(
    "lesion_context_resnet50",
    "Lesion and context of ResNet-50 joined by a gate per dimension, BERT-base, and a mixture of experts.",
    **RESNET50,
    **LESION_CONTEXT,
)
arch("global_local_lite0", "Two streams on EfficientNet-Lite0 and a two-layer BERT.", **LITE0, **GLOBAL_LOCAL)
arch(
    "dual_expert_lite0",
    "Lesion and context experts on EfficientNet-Lite0 and a two-layer BERT.",
    **LITE0,
    **DUAL_EXPERT,
)
arch(
    "lesion_context_lite0",
    "Gated lesion and context with a mixture of experts on EfficientNet-Lite0 and a two-layer BERT.",
    **LITE0,
    **LESION_CONTEXT,
)
