"""Single-modality baselines."""

from mmfusion.models.architecture import LITE0, arch

arch("image_resnet18", "ResNet-18 on the image alone, with an MLP head.", image_encoder="resnet18")
arch("image_resnet50", "ResNet-50 on the image alone.", image_encoder="resnet50")
arch("image_convnext_base", "ConvNeXt-B on the image alone.", image_encoder="convnext_base")
arch("image_lite0", "EfficientNet-Lite0 on the image alone: trains on a laptop CPU.", LITE0, text_encoder=None)
arch("text_bert_base", "BERT-base on the text alone.", text_encoder="bert_base")
arch("text_bert_tiny", "A two-layer, 128-wide BERT on the text alone, trained from scratch.", text_encoder="bert_tiny")
arch("text_minilm", "MiniLM-L6 on the text alone.", text_encoder="minilm")
