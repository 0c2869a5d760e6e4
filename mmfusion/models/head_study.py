"""The baseline with every other head, all else equal (report section 2.6.1)."""

from typing import Any

from mmfusion.models.architecture import CONVNEXT_BASE, LITE0, RESNET18, arch

KAN: dict[str, Any] = {"fusion": "concat", "head": "kan"}
KAN_RATIONAL: dict[str, Any] = KAN | {"head_args": {"basis": "rational", "degree": 5}}
RESIDUAL_MLP: dict[str, Any] = {"fusion": "concat", "head": "residual_mlp"}
MOE: dict[str, Any] = {"fusion": "concat", "head": "moe"}
# a head that pools tokens needs a block that makes them; queries from the image, so that the weights are a map of it
ATTENTION_POOL: dict[str, Any] = {
    "fusion": "cross_attention",
    "fusion_args": {"query": "image"},
    "head": "attention_pool",
}

arch(
    "kan_resnet18",
    "The baseline with a Kolmogorov-Arnold head: B-splines, each shared by a group of channels.",
    **RESNET18,
    **KAN,
)
arch(
    "kan_rational_resnet18",
    "The baseline with a Kolmogorov-Arnold head of rational functions.",
    **RESNET18,
    **KAN_RATIONAL,
)
arch("residual_mlp_resnet18", "The baseline with a residual perceptron head.", **RESNET18, **RESIDUAL_MLP)
arch(
    "attention_pool_resnet18",
    "Image positions that have read the text, pooled by attention.",
    **RESNET18,
    **ATTENTION_POOL,
    dim=512,
)
arch("moe_resnet18", "The baseline with a mixture of four experts, two per sample.", **RESNET18, **MOE)
arch(
    "moe_convnext_base",
    "ConvNeXt-B and BERT-base with a mixture of four experts, two per sample (report, ConvNeXt + MoE).",
    **CONVNEXT_BASE,
    **MOE,
)
arch("kan_lite0", "Kolmogorov-Arnold head on EfficientNet-Lite0 and a two-layer BERT.", **LITE0, **KAN)
arch(
    "kan_rational_lite0",
    "Kolmogorov-Arnold head of rational functions on EfficientNet-Lite0 and a two-layer BERT.",
    **LITE0,
    **KAN_RATIONAL,
)
arch(
    "residual_mlp_lite0",
    "Residual perceptron head on EfficientNet-Lite0 and a two-layer BERT.",
    **LITE0,
    **RESIDUAL_MLP,
)
arch(
    "attention_pool_lite0",
    "Attention pooling of image positions that have read the text, on EfficientNet-Lite0 and a two-layer BERT.",
    **LITE0,
    **ATTENTION_POOL,
    dim=256,
)
arch("moe_lite0", "Mixture of four experts on EfficientNet-Lite0 and a two-layer BERT.", **LITE0, **MOE)
