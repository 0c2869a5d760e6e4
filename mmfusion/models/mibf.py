"""MIBF-Net: bidirectional fusion by attention (IBFA), auxiliary heads for the disagreement loss."""

from typing import Any

from mmfusion.models.architecture import CONVNEXT_BASE, LITE0, RESNET50, arch

PUBLISHED: dict[str, Any] = {"fusion": "ibfa", "head": "linear", "aux_heads": True}

arch(
    "mibf_resnet50",
    """MIBF-Net with the published network: ResNet-50 and BERT-base, pooled IBFA of width 768.

    Image weights, normalization, augmentation and optimizer are those of mmfusion. So is the loss ``mp``: the published
    code assigns its weights 0.3 and 0.6 to the opposite streams. docs/parts/mibf.md lists every difference, and
    examples/mibf_published.yaml follows the published training as closely as possible.
    """,
    RESNET50 | PUBLISHED,
    dim=768,
)
arch(
    "mibf_convnext_base",
    """After MIBF-Net's ConvNeXt variant: ConvNeXt-B, with a self-attention over the map before pooling.

    It differs from the published code: the map is read after timm's final norm, not before it; self-attention (8 heads,
    pre-norm, with residual and feed-forward network) comes before the projection to 768, where the published one (one
    head, none of these, no output projection) comes after it; and IBFA keeps its output projection.
    """,
    CONVNEXT_BASE | PUBLISHED,
    image_args={"map_attention": True},
    dim=768,
)
SMALL = "MIBF-Net on EfficientNet-Lite0 and a two-layer BERT: trains on a laptop CPU."
arch("mibf_lite0", SMALL, LITE0, PUBLISHED, dim=256, aux_hidden=128)

# The published block tends to collapse to one side; docs/parts/mibf.md has the measurements.
BOTH_SIDES: dict[str, Any] = PUBLISHED | {
    "text_args": {"pooling": "mean"},
    "fusion_args": {"residual": True, "auxiliary": "own", "max_logit": 4},
}

arch(
    "mibf_v2_resnet50",
    """``mibf_resnet50`` whose fusion reads both sides: residual, bounded attention, auxiliary heads of one side each.

    Text tokens are averaged; the loss ``mp`` compares the predictions from the image alone and the text alone.
    """,
    RESNET50 | BOTH_SIDES,
    dim=768,
)
arch(
    "mibf_v2_convnext_base",
    """``mibf_convnext_base`` whose fusion reads both sides, as in ``mibf_v2_resnet50``.""",
    CONVNEXT_BASE | BOTH_SIDES,
    image_args={"map_attention": True},
    dim=768,
)
arch(
    "mibf_v2_lite0",
    """``mibf_lite0`` whose fusion reads both sides, as in ``mibf_v2_resnet50``: trains on a laptop CPU.""",
    LITE0 | BOTH_SIDES,
    dim=256,
    aux_hidden=128,
)
