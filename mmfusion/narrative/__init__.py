"""Patient narratives: a sentence from metadata, passages retrieved for it, and a guard against label words."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

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

__getattr__, __dir__ = attach(__name__)
