"""External validation: evaluates a trained model at another site and updates its probabilities."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.sites.config import ValidateConfig as ValidateConfig
    from mmfusion.sites.run import Validation as Validation, validate as validate
    from mmfusion.sites.updates import (
        KINDS as KINDS,
        Update as Update,
        choose_update as choose_update,
        fit_update as fit_update,
    )

__getattr__, __dir__ = attach(__name__)
