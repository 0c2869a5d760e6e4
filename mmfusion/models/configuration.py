"""A model's keywords: a dict that transformers' Trainer accepts as a configuration."""

import json
from typing import Any, ClassVar


class FusionConfig(dict[str, Any]):
    """The keywords that rebuild a model: ``FusionModel(**config)``.

    The Trainer and its experiment trackers also set and read attributes, which do not become keywords, and call the two
    methods.

    Attributes:
        keys_to_ignore_at_inference: Fields of a ``FusionOutput`` that the Trainer does not gather during evaluation.
    """

    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *("image_logits", "text_logits", "features", "attentions", "gates", "router_probs", "aux_loss", "log_scales")
    ]

    def to_dict(self) -> dict[str, Any]:
        """The keywords as a plain dict."""
        return dict(self)

    def to_json_string(self, use_diff: bool = True) -> str:
        """The keywords as JSON; ``use_diff`` exists for compatibility with transformers and has no effect."""
        return json.dumps(self, indent=2)
