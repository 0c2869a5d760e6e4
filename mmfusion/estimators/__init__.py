"""scikit-learn estimators."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.estimators.classifier import FusionClassifier as FusionClassifier
    from mmfusion.estimators.regressor import FusionRegressor as FusionRegressor

__getattr__, __dir__ = attach(__name__)
