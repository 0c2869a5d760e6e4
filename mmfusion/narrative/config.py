"""Options of narratives. Importing this module loads no heavy library."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class NarrativeConfig:
    """How narratives are written.

    Attributes:
        template: Sentence made from metadata columns, as ``dataset.text_template``; None uses that one.
        knowledge: Passages to retrieve from: ``dermatology`` or ``spine`` (shipped), a ``.jsonl`` or ``.csv`` file with
            ``text`` and optionally ``id``, ``weight``, ``tags`` and ``source``; None appends nothing.
        retriever: ``bm25``, ``tfidf``, ``dense`` (sentence vectors), or the name of a registered retriever.
        top_k: Maximum number of passages per narrative.
        encoder: Text encoder of the dense retriever: ``minilm``, a transformers folder or a Hub id.
        weighting: Weights of the passages from their scores: ``softmax`` or ``share``.
        temperature: Scale of the softmax; small values favor the best passage.
        max_tokens: Budget of the whole text in tokens; None has no limit. Passages are cut at whole sentences.
        tokenizer: Tokenizer to count tokens: ``minilm``, a transformers folder or a Hub id; None counts words.
        synonyms: JSON file that maps labels to further words that reveal them; None uses those of the shipped
            knowledge.
        on_leak: ``remove`` removes words that reveal the label; ``refuse`` stops with an error.
        leaking_columns: Further metadata columns that must not enter a text; ``dx``, ``dx_type``, ``diagnosis`` and the
            label column never do.
    """

    template: str | None = None
    knowledge: str | None = None
    retriever: str = "bm25"
    top_k: int = 2
    encoder: str = "minilm"
    weighting: str = "softmax"
    temperature: float = 1.0
    max_tokens: int | None = None
    tokenizer: str | None = None
    synonyms: str | None = None
    on_leak: str = "remove"
    leaking_columns: list[str] | None = None


@dataclass
class NarrateConfig:
    """Options of narrate.

    Attributes:
        data: Root folder of the data set, or its table.
        output: Folder for ``image.csv``, ``response.json`` and ``narrative.json``; created if it does not exist.
        narrative: How narratives are written.
        dataset: How to read the data.
    """

    data: str
    output: str
    narrative: NarrativeConfig = field(default_factory=NarrativeConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
