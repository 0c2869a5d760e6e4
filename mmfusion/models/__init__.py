"""Models: towers, fusion block and head under one name. Importing this package registers every built-in model."""

from mmfusion.artifacts.folder import read_config, resolve_artifact
from mmfusion.artifacts.hub import push_to_hub
from mmfusion.models import (
    baselines,
    fusion_study,
    head_study,
    hierarchical,
    lesion_context,
    mibf,
    multiview,
    slices,
    testing,
)
from mmfusion.models.factory import (
    build,
    create_aggregator,
    create_fusion,
    create_head,
    create_loss,
    create_model,
    list_components,
    list_models,
    register_model,
)
from mmfusion.models.fusion_model import FusionModel, class_probabilities
from mmfusion.models.saved import load_model, save_model

__all__ = [
    "FusionModel",
    "baselines",
    "build",
    "class_probabilities",
    "create_aggregator",
    "create_fusion",
    "create_head",
    "create_loss",
    "create_model",
    "fusion_study",
    "head_study",
    "hierarchical",
    "lesion_context",
    "list_components",
    "list_models",
    "load_model",
    "mibf",
    "multiview",
    "push_to_hub",
    "read_config",
    "register_model",
    "resolve_artifact",
    "save_model",
    "slices",
    "testing",
]
