"""Multimodal diagnosis: models, blocks and weights that read medical images together with patient text.

Every public name below, and every subpackage, is imported when it is first used: ``import mmfusion`` loads no library.
"""

from typing import TYPE_CHECKING

from mmfusion._version import __version__ as __version__
from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion import aggregators as aggregators
    from mmfusion import data as data
    from mmfusion import evaluation as evaluation
    from mmfusion import fusion as fusion
    from mmfusion import heads as heads
    from mmfusion import layers as layers
    from mmfusion import losses as losses
    from mmfusion import models as models
    from mmfusion import towers as towers
    from mmfusion import training as training
    from mmfusion.averaging import make_soup as make_soup
    from mmfusion.exporting import export_model as export_model
    from mmfusion.inference.predictor import Predictor as Predictor
    from mmfusion.models import FusionModel as FusionModel
    from mmfusion.models import create_aggregator as create_aggregator
    from mmfusion.models import create_fusion as create_fusion
    from mmfusion.models import create_head as create_head
    from mmfusion.models import create_loss as create_loss
    from mmfusion.models import create_model as create_model
    from mmfusion.models import list_components as list_components
    from mmfusion.models import list_models as list_models
    from mmfusion.models import push_to_hub as push_to_hub
    from mmfusion.outputs import Features as Features
    from mmfusion.outputs import Fused as Fused
    from mmfusion.outputs import FusionOutput as FusionOutput
    from mmfusion.registry import register as register

__getattr__, __dir__ = attach(__name__)
