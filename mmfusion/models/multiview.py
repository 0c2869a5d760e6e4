"""Several views of one patient, compared by cross-attention."""

from mmfusion.models.architecture import LITE0, RESNET50, arch

VIEWS = {"image_tower": "views", "fusion": "concat"}
SMALL = "Views on EfficientNet-Lite0, compared at width 256, and a two-layer BERT."

arch("multiview_resnet50", "ResNet-50 tokens of the first view attend to the other views; BERT-base.", RESNET50, VIEWS)
arch("multiview_lite0", SMALL, LITE0, VIEWS, image_args={"dim": 256})
