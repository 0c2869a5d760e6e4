"""A model's keywords: a dict that the Trainer of transformers reads like one of its own configurations."""

import json
from typing import Any, ClassVar


class FusionConfig(dict[str, Any]):
    """The keywords that rebuild a model: ``FusionModel(**config)``.

    The Trainer and its trackers set and read attributes, which are no keywords, and call the two methods.

    Attributes:
        keys_to_ignore_at_inference: Fields of a ``FusionOutput`` that the Trainer's evaluation does not gather.
    """

    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *("image_logits", "text_logits", "features", "attentions", "gates", "router_probs", "aux_loss", "log_scales")
    ]

    def to_dict(self) -> dict[str, Any]:
        """The keywords as a plain dict."""
        return dict(self)

    def to_json_string(self, use_diff: bool = True) -> str:
        """The keywords as JSON; ``use_diff`` is an argument of transformers' method, and changes nothing here."""
        return json.dumps(self, indent=2)
