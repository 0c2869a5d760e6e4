"""The baseline with every other head, all else equal."""

from typing import Any

from mmfusion.models.architecture import CONVNEXT_BASE, LITE0, RESNET18, arch

RESIDUAL_MLP: dict[str, Any] = {"fusion": "concat", "head": "residual_mlp"}
MOE: dict[str, Any] = {"fusion": "concat", "head": "moe"}
KAN: dict[str, Any] = {"fusion": "concat", "head": "kan"}
RATIONAL = KAN | {"head_args": {"basis": "rational", "degree": 5}}
# a head that pools tokens needs a block that returns them; image queries make the weights a map over the image
POOL: dict[str, Any] = {"fusion": "cross_attention", "fusion_args": {"query": "image"}, "head": "attention_pool"}
SMALL = "EfficientNet-Lite0 and a two-layer BERT"
SPLINES = "The baseline with a Kolmogorov-Arnold head: B-splines, each shared by a group of channels."
PUBLISHED = "ConvNeXt-B and BERT-base with a mixture of four experts, two per sample."

arch("residual_mlp_resnet18", "The baseline with a residual perceptron head.", RESNET18, RESIDUAL_MLP)
arch("moe_resnet18", "The baseline with a mixture of four experts, two per sample.", RESNET18, MOE)
arch("moe_convnext_base", PUBLISHED, CONVNEXT_BASE, MOE)
arch("kan_resnet18", SPLINES, RESNET18, KAN)
arch("kan_rational_resnet18", "The baseline with a Kolmogorov-Arnold head of rational functions.", RESNET18, RATIONAL)
arch(
    "attention_pool_resnet18", "Image tokens after attention to the text, pooled by attention.", RESNET18, POOL, dim=512
)
arch("residual_mlp_lite0", f"Residual perceptron head on {SMALL}.", LITE0, RESIDUAL_MLP)
arch("moe_lite0", f"Mixture of four experts on {SMALL}.", LITE0, MOE)
arch("kan_lite0", f"Kolmogorov-Arnold head on {SMALL}.", LITE0, KAN)
arch("kan_rational_lite0", f"Kolmogorov-Arnold head of rational functions on {SMALL}.", LITE0, RATIONAL)
READ = f"Attention pooling of image tokens after attention to the text, on {SMALL}."
arch("attention_pool_lite0", READ, LITE0, POOL, dim=256)
