"""Multimodal diagnosis: models, building blocks and weights for medical images with patient text and tables.

All public names and subpackages are imported on first use: ``import mmfusion`` loads no other library.
"""

from typing import TYPE_CHECKING

from mmfusion._version import __version__ as __version__
from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion import (
        aggregators as aggregators,
        auditing as auditing,
        data as data,
        evaluation as evaluation,
        explanation as explanation,
        fusion as fusion,
        heads as heads,
        layers as layers,
        losses as losses,
        models as models,
        narrative as narrative,
        towers as towers,
        training as training,
    )
    from mmfusion.averaging import make_soup as make_soup
    from mmfusion.cli.verbs import (
        audit as audit,
        auto as auto,
        compare as compare,
        embed as embed,
        evaluate as evaluate,
        explain as explain,
        export as export,
        narrate as narrate,
        predict as predict,
        push as push,
        soup as soup,
        split as split,
        sweep as sweep,
        train as train,
        validate as validate,
    )
    from mmfusion.data import Processor as Processor
    from mmfusion.estimators.classifier import FusionClassifier as FusionClassifier
    from mmfusion.estimators.regressor import FusionRegressor as FusionRegressor
    from mmfusion.exporting import export_model as export_model
    from mmfusion.inference.predictor import Predictor as Predictor
    from mmfusion.models import (
        FusionModel as FusionModel,
        create as create,
        create_aggregator as create_aggregator,
        create_fusion as create_fusion,
        create_head as create_head,
        create_loss as create_loss,
        create_model as create_model,
        get_pretrained_cfg as get_pretrained_cfg,
        is_model as is_model,
        list_components as list_components,
        list_models as list_models,
        list_pretrained as list_pretrained,
        push_to_hub as push_to_hub,
        register_model as register_model,
        save_pretrained as save_pretrained,
    )
    from mmfusion.outputs import Features as Features, Fused as Fused, FusionOutput as FusionOutput
    from mmfusion.registry import register as register

__getattr__, __dir__ = attach(__name__)
