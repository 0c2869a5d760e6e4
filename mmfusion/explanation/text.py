"""Relevance of text tokens for a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.explanation.forward import attributing, captum_attr, computed_once, logits_of
from mmfusion.names import did_you_mean

METHODS = ("integrated_gradients", "gradient_x_input")


def token_relevance(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    target: int,
    *,
    baseline_ids: Tensor,
    method: str = "integrated_gradients",
    steps: int = 16,
) -> Tensor:
    """Relevance of each text token for the logit of a class; positive values support the class.

    The image is unchanged, and its tower runs once.

    Args:
        model: A ``FusionModel`` with a transformers text tower.
        inputs: Keyword tensors of one sample (B = 1).
        target: Position of the class.
        baseline_ids: (1, L) neutral text: padding tokens instead of words (:func:`blank_text`).
        method: ``integrated_gradients`` of the word embeddings from the baseline's to the text's (Sundararajan et al.
            2017): the relevances sum to the difference of the logits. ``gradient_x_input`` is its one-step
            approximation at the text.
        steps: Number of steps of the integral.

    Returns:
        (L,) relevances, 0 at padding.

    Raises:
        ValueError: No text in the inputs, or an unknown method.
        ImportError: captum is not installed.
    """
    ids, tower = inputs.get("input_ids"), getattr(model, "text_tower", None)
    if ids is None or tower is None:
        raise ValueError("There is no text to explain: the model has no text tower, or the sample no input_ids.")
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; {did_you_mean(method, list(METHODS))}")
    captum = captum_attr()
    forward, others = logits_of(model, inputs, "input_ids")
    embeddings = tower.backbone.get_input_embeddings()
    with attributing(model), computed_once(getattr(model, "image_tower", None)):
        if method == "integrated_gradients":
            found = captum.LayerIntegratedGradients(forward, embeddings).attribute(
                ids, baselines=baseline_ids, target=target, additional_forward_args=others, n_steps=steps
            )
        else:
            found = _gradient_x_input(forward, embeddings, ids, baseline_ids, target, others)
    return found.detach().sum(dim=-1)[0]


def _gradient_x_input(
    forward: Any, embeddings: nn.Module, ids: Tensor, baseline_ids: Tensor, target: int, others: Sequence[Tensor]
) -> Tensor:
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = embeddings.register_forward_hook(keep)
    try:
        logit = forward(ids, *others)[0, target]
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept)
    return gradient * (kept[0] - embeddings(baseline_ids))


def blank_text(input_ids: Tensor, tokenizer: Any) -> Tensor:
    """The text with padding in place of everything but the special tokens, (1, L)."""
    special = tokenizer.get_special_tokens_mask(input_ids[0].tolist(), already_has_special_tokens=True)
    keep = torch.tensor(special, dtype=torch.bool, device=input_ids.device)
    return torch.where(keep, input_ids, torch.full_like(input_ids, tokenizer.pad_token_id))


def words_of(
    tokens: Sequence[str], relevance: Sequence[float], special: Sequence[str], *, digits: bool = True
) -> list[tuple[str, float]]:
    """Join word pieces to words and digits to numbers, summing their relevance; special tokens are left out.

    Args:
        tokens: N pieces.
        relevance: N numbers.
        special: Tokens that are not part of the text.
        digits: Whether the tokenizer splits numbers into digits; if not, adjacent digits are two numbers.
    """
    starts = ("\u2581", "\u0120")  # markers of word starts in SentencePiece and byte-level BPE
    marked = any(token.startswith(starts) for token in tokens)
    found: list[tuple[str, float]] = []
    within = False  # whether the previous token is a digit of a number
    for token, value in zip(tokens, relevance, strict=True):
        digit = digits and len(token) == 1 and token.isdigit()
        begins = token.startswith(starts) if marked else not (token.startswith("##") or (digit and within))
        within = digit
        if token in special:
            continue
        piece = token.lstrip("".join(starts)) if marked else token.removeprefix("##")
        if begins or not found:
            found.append((piece, value))
        else:
            found[-1] = (found[-1][0] + piece, found[-1][1] + value)
    return found
