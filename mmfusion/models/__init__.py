"""Models: towers, fusion block and head under one name. Every file of this folder may register models."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.artifacts.folder import read_config as read_config, resolve_artifact as resolve_artifact
    from mmfusion.artifacts.publishing import push_to_hub as push_to_hub
    from mmfusion.models.catalogue import (
        get_pretrained_cfg as get_pretrained_cfg,
        is_model as is_model,
        list_components as list_components,
        list_models as list_models,
        list_pretrained as list_pretrained,
    )
    from mmfusion.models.factory import (
        build as build,
        create as create,
        create_aggregator as create_aggregator,
        create_fusion as create_fusion,
        create_head as create_head,
        create_loss as create_loss,
        create_model as create_model,
        register_model as register_model,
    )
    from mmfusion.models.fusion_model import FusionModel as FusionModel
    from mmfusion.models.saved import load_model as load_model
    from mmfusion.models.saving import save_model as save_model, save_pretrained as save_pretrained

__getattr__, __dir__ = attach(__name__)
