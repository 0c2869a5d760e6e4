"""Registration of architectures: one call per model, with shared encoder pairs."""

import sys
from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

RESNET18: dict[str, Any] = {"image_encoder": "resnet18", "text_encoder": "bert_base"}
RESNET50: dict[str, Any] = {"image_encoder": "resnet50", "text_encoder": "bert_base"}
CONVNEXT_BASE: dict[str, Any] = {"image_encoder": "convnext_base", "text_encoder": "bert_base"}
LITE0: dict[str, Any] = {"image_encoder": "tf_efficientnet_lite0", "text_encoder": "bert_tiny"}


def arch(name: str, summary: str, *shared: dict[str, Any], **own: Any) -> None:
    """Register a model.

    Args:
        name: Name of the model.
        summary: Docstring; its first line is shown in the list of models.
        shared: Keywords of ``FusionModel`` shared by several models; later ones take precedence.
        own: Keywords of this model. Those given to ``create_model`` override all of these.
    """
    keywords: dict[str, Any] = {}
    for some in (*shared, own):
        keywords |= some

    def entrypoint(**overrides: Any) -> FusionModel:
        return build(overrides, **keywords)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = summary
    entrypoint.keywords = keywords  # type: ignore[attr-defined]  # what resolve_config reads
    entrypoint.__module__ = sys._getframe(1).f_globals["__name__"]  # how the registry recognizes built-in parts
    register_model(entrypoint)
