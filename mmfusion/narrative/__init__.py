"""Patient narratives: a sentence from metadata, passages retrieved for it, and a guard against label words."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.narrative.config import NarrateConfig as NarrateConfig, NarrativeConfig as NarrativeConfig
    from mmfusion.narrative.narrator import Narrative as Narrative, Narrator as Narrator
    from mmfusion.narrative.passages import (
        Passage as Passage,
        list_knowledge as list_knowledge,
        read_knowledge as read_knowledge,
    )
    from mmfusion.narrative.retrieval import create_retriever as create_retriever
    from mmfusion.narrative.run import narrate as narrate
    from mmfusion.text.guard import LeakGuard as LeakGuard, read_synonyms as read_synonyms

__getattr__, __dir__ = attach(__name__)
