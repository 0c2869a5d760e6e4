"""Patient narratives: a sentence from metadata, passages retrieved for it, and a guard against label words.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "NarrateConfig": "config",
    "NarrativeConfig": "config",
    "LeakGuard": ".text.guard",
    "Passage": "passages",
    "list_knowledge": "passages",
    "read_knowledge": "passages",
    "read_synonyms": ".text.guard",
    "create_retriever": "retrieval",
    "Narrative": "narrator",
    "Narrator": "narrator",
    "narrate": "run",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.narrative.config import NarrateConfig as NarrateConfig
    from mmfusion.narrative.config import NarrativeConfig as NarrativeConfig
    from mmfusion.narrative.narrator import Narrative as Narrative
    from mmfusion.narrative.narrator import Narrator as Narrator
    from mmfusion.narrative.passages import Passage as Passage
    from mmfusion.narrative.passages import list_knowledge as list_knowledge
    from mmfusion.narrative.passages import read_knowledge as read_knowledge
    from mmfusion.narrative.retrieval import create_retriever as create_retriever
    from mmfusion.narrative.run import narrate as narrate
    from mmfusion.text.guard import LeakGuard as LeakGuard
    from mmfusion.text.guard import read_synonyms as read_synonyms

__getattr__, __dir__ = exports(__name__, _MODULES)
