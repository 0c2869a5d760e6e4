"""ResNet-18 and BERT-base with every fusion block, all else equal."""

from mmfusion.models.architecture import LITE0, RESNET18, arch

BASELINE = RESNET18 | {"head": "mlp", "head_args": {"hidden_features": 256, "dropout": 0.5}}
CONCAT = "Baseline: ResNet-18 and BERT-base, concatenation, MLP head."
SSM_LITE0 = "Mamba fusion on EfficientNet-Lite0 and a two-layer BERT: trains on a laptop CPU."
HIER_RESNET18 = "ResNet-18's layers 2, 3, 4 with BERT-base's layers 4, 8, 12, gated pair by pair."
HIER_LITE0 = "Three levels of EfficientNet-Lite0 with those of a two-layer BERT."

arch("concat_resnet18", CONCAT, BASELINE, fusion="concat")
for block, summary in {
    "add": "The baseline with element-wise addition.",
    "mul": "The baseline with element-wise multiplication.",
    "gated": "The baseline with a gate per dimension.",
    "cross_attention": "The baseline with text tokens attending to the image map, one layer.",
    "co_attention": "The baseline with attention in both directions.",
    "bilinear": "The baseline with a low-rank bilinear interaction.",
    "ibfa": "The baseline with MIBF-Net's bidirectional fusion in its place.",
}.items():
    arch(f"{block}_resnet18", summary, BASELINE, fusion=block, dim=512)
arch("ssm_resnet18", "The baseline with bidirectional Mamba fusion, one layer.", BASELINE, fusion="ssm", dim=256)
arch("ssm_lite0", SSM_LITE0, LITE0, fusion="ssm", dim=128, head="mlp")
arch("hier_resnet18", HIER_RESNET18, RESNET18, fusion="hier_interact", dim=512)
arch("hier_lite0", HIER_LITE0, LITE0, fusion="hier_interact", dim=256)
