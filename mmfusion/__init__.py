"""Multimodal diagnosis: models, blocks and weights that read medical images together with patient text.

Every public name below, and every subpackage, is imported when it is first used: ``import mmfusion`` loads no library.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from mmfusion._version import __version__

if TYPE_CHECKING:
    from mmfusion import aggregators, data, evaluation, fusion, heads, layers, losses, models, towers, training
    from mmfusion.averaging import make_soup
    from mmfusion.exporting import export_model
    from mmfusion.inference.predictor import Predictor
    from mmfusion.models import (
        FusionModel,
        create_aggregator,
        create_fusion,
        create_head,
        create_loss,
        create_model,
        list_components,
        list_models,
        push_to_hub,
    )
    from mmfusion.outputs import Features, Fused, FusionOutput
    from mmfusion.registry import register

#: public name -> the module that defines it.
_HOME = {
    "Features": "mmfusion.outputs",
    "Fused": "mmfusion.outputs",
    "FusionModel": "mmfusion.models",
    "FusionOutput": "mmfusion.outputs",
    "Predictor": "mmfusion.inference.predictor",
    "create_aggregator": "mmfusion.models",
    "create_fusion": "mmfusion.models",
    "create_head": "mmfusion.models",
    "create_loss": "mmfusion.models",
    "create_model": "mmfusion.models",
    "export_model": "mmfusion.exporting",
    "list_components": "mmfusion.models",
    "list_models": "mmfusion.models",
    "make_soup": "mmfusion.averaging",
    "push_to_hub": "mmfusion.models",
    "register": "mmfusion.registry",
}

__all__ = [
    "Features",
    "Fused",
    "FusionModel",
    "FusionOutput",
    "Predictor",
    "__version__",
    "aggregators",
    "create_aggregator",
    "create_fusion",
    "create_head",
    "create_loss",
    "create_model",
    "data",
    "evaluation",
    "export_model",
    "fusion",
    "heads",
    "layers",
    "list_components",
    "list_models",
    "losses",
    "make_soup",
    "models",
    "push_to_hub",
    "register",
    "towers",
    "training",
]


def __getattr__(name: str) -> Any:
    """Import a public name or a subpackage on its first use (PEP 562)."""
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"mmfusion.{name}"):
        return importlib.import_module(f"mmfusion.{name}")
    raise AttributeError(f"module 'mmfusion' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Everything that :func:`__getattr__` can resolve."""
    return sorted({*globals(), *__all__, *(module.name for module in pkgutil.iter_modules(__path__))})
