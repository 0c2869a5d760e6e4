"""Explanation: heat maps, relevance of words and columns, and contributions of modalities."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.explanation.attention import attention_maps as attention_maps
    from mmfusion.explanation.columns import column_contributions as column_contributions
    from mmfusion.explanation.contributions import (
        Contributions as Contributions,
        modality_contributions as modality_contributions,
    )
    from mmfusion.explanation.explanation import Explanation as Explanation, explain_item as explain_item
    from mmfusion.explanation.image import image_relevance as image_relevance
    from mmfusion.explanation.overlay import draw as draw, save_explanation as save_explanation
    from mmfusion.explanation.run import explain_path as explain_path
    from mmfusion.explanation.text import token_relevance as token_relevance

__getattr__, __dir__ = attach(__name__)
