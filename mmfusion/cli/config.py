"""Options and result of ``mmfusion list`` and ``mmfusion info``. Imports no heavy library."""

from dataclasses import dataclass, field


@dataclass
class ListConfig:
    """Options of ``mmfusion list``.

    Attributes:
        pattern: Names to show, with wildcards.
        kind: What to list: model, fusion, head, aggregator, image_tower, text_tower, tower, loss, metric, augmentation
            or retriever.
        pretrained: List only models with trained weights, as ``arch.tag``.
    """

    pattern: str = field(default="*", metadata={"positional": True})
    kind: str = "model"
    pretrained: bool = False


@dataclass
class InfoConfig:
    """Options of ``mmfusion info``.

    Attributes:
        name: Architecture, part, or trained model (``local-dir:RUN``, ``hf-hub:ORG/NAME``, ``arch.tag``).
    """

    name: str = field(metadata={"positional": True})


class Text(str):
    """A text result, which is its own summary."""

    def summary(self) -> str:
        """The text."""
        return str(self)
