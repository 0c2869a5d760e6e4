"""Explanation: where a model looks, which words it reads, and how much each modality counts.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "attention_maps": "attention",
    "Contributions": "contributions",
    "modality_contributions": "contributions",
    "Explanation": "explanation",
    "explain": "explanation",
    "explain_path": "run",
    "image_relevance": "image",
    "save_explanation": "overlay",
    "draw": "overlay",
    "token_relevance": "text",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.explanation.attention import attention_maps as attention_maps
    from mmfusion.explanation.contributions import Contributions as Contributions
    from mmfusion.explanation.contributions import modality_contributions as modality_contributions
    from mmfusion.explanation.explanation import Explanation as Explanation
    from mmfusion.explanation.explanation import explain as explain
    from mmfusion.explanation.image import image_relevance as image_relevance
    from mmfusion.explanation.overlay import draw as draw
    from mmfusion.explanation.overlay import save_explanation as save_explanation
    from mmfusion.explanation.run import explain_path as explain_path
    from mmfusion.explanation.text import token_relevance as token_relevance

__getattr__, __dir__ = exports(__name__, _MODULES)
