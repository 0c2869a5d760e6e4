"""Attention of a fusion block as a map over the image."""

from collections.abc import Mapping

from torch import Tensor


def attention_maps(
    attentions: Mapping[str, Tensor] | None, size: tuple[int, int], text_mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Attention of text tokens to image positions: name -> (h, w), the mean over heads and valid text tokens.

    Args:
        attentions: Attentions of a model's output, name -> (1, heads, Q, K). Used are those named ``text_to_...`` whose
            keys end with the image's tokens: ``text_to_image.0`` of cross-attention, ``text_to_both`` of IBFA over
            tokens.
        size: Rows and columns of the image's tokens.
        text_mask: (1, L), valid text tokens.
    """
    count, maps = size[0] * size[1], {}
    for name, weights in (attentions or {}).items():
        queries, keys = weights.shape[-2:]
        if not name.startswith("text_to_") or count < 2 or keys not in (count, count + queries):
            continue
        asked = weights[0, :, :, -count:].mean(dim=0)
        if text_mask is not None and text_mask.shape[-1] == queries and bool(text_mask[0].any()):
            asked = asked[text_mask[0].bool()]
        maps[name] = asked.mean(dim=0).unflatten(0, size).detach()
    return maps
