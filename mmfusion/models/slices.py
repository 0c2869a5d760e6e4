"""Studies of several slices: 2.5D and sequence models."""

from typing import Any

from mmfusion.models.architecture import LITE0, RESNET50, arch

SLICES: dict[str, Any] = {"image_tower": "slices", "fusion": "concat"}
STEM25D = SLICES | {"stem": "2.5d", "aggregator": "mean"}

arch(
    "stem25d_resnet50",
    "ResNet-50 on each slice with its neighbors as channels, averaged over the study; BERT-base.",
    RESNET50 | STEM25D,
)
arch("stem25d_lite0", "2.5D on EfficientNet-Lite0 and a two-layer BERT.", LITE0, STEM25D)
for name, aggregator, resnet50, lite0 in (
    ("bilstm", "bilstm", "a bidirectional LSTM", "a bidirectional LSTM"),
    ("seq_transformer", "transformer", "a transformer with position encoding", "a transformer"),
    ("seq_ssm", "ssm", "a selective state space model", "a selective state space model"),
):
    keywords = SLICES | {"aggregator": aggregator}
    arch(f"{name}_resnet50", f"ResNet-50 per slice, then {resnet50}; BERT-base.", RESNET50, keywords)
    arch(f"{name}_lite0", f"EfficientNet-Lite0 per slice, then {lite0}; a two-layer BERT.", LITE0, keywords)
