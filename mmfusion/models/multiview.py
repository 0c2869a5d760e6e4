"""Several views of one patient, compared by cross-attention (report section 2.6.2, eq. 23-24)."""

from typing import Any

from mmfusion.models.architecture import LITE0, RESNET50, arch

VIEWS: dict[str, Any] = {"image_tower": "views", "fusion": "concat"}

arch(
    "multiview_resnet50",
    "The first view's ResNet-50 tokens attend to the other views'; BERT-base.",
    **RESNET50,
    **VIEWS,
)
arch(
    "multiview_lite0",
    "Views on EfficientNet-Lite0, compared at width 256, and a two-layer BERT.",
    **LITE0,
    **VIEWS,
    image_args={"dim": 256},
)
