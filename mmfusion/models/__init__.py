"""Models: towers, fusion block and head under one name. A file of this folder that registers a model is found."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.artifacts.folder import read_config as read_config
    from mmfusion.artifacts.folder import resolve_artifact as resolve_artifact
    from mmfusion.artifacts.hub import push_to_hub as push_to_hub
    from mmfusion.models.factory import build as build
    from mmfusion.models.factory import create_aggregator as create_aggregator
    from mmfusion.models.factory import create_fusion as create_fusion
    from mmfusion.models.factory import create_head as create_head
    from mmfusion.models.factory import create_loss as create_loss
    from mmfusion.models.factory import create_model as create_model
    from mmfusion.models.factory import list_components as list_components
    from mmfusion.models.factory import list_models as list_models
    from mmfusion.models.factory import register_model as register_model
    from mmfusion.models.fusion_model import FusionModel as FusionModel
    from mmfusion.models.saved import load_model as load_model
    from mmfusion.models.saved import save_model as save_model

__getattr__, __dir__ = attach(__name__)
