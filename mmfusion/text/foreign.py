"""Checks of a tokenizer file from others: its size, and how much it lengthens texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfusion.names import clip
from mmfusion.untrusted import read_foreign_json

#: bytes of tokenizer.json, at most: the vocabularies of the largest language models take about 35 million.
MOST_TOKENIZER = 128 << 20
#: how many times as long as it was a normalizer may make a text, and how many tokens a text is padded to.
MOST_LONGER = 64
MOST_PADDING = 1_000_000
#: texts that a sound tokenizer reads: words, numbers, signs, and characters that no vocabulary has.
PROBES = ("", "A 55-year-old, 3.5 cm (back)?", "xyzzyx \u0378 \U0001f9ec \t\n \ufffd")


def check_tokenizer(path: Path) -> None:
    """Check that a ``tokenizer.json`` cannot use excessive memory.

    Raises:
        ValueError: It is not a JSON object, too large, or makes texts many times longer.
    """
    values = read_foreign_json(path, MOST_TOKENIZER)
    longer = 1.0
    for step in _steps(values.get("normalizer")):
        content, pattern = step.get("content"), step.get("pattern")
        if isinstance(content, str):
            replaced = pattern.get("String") if isinstance(pattern, dict) else None
            longer *= max(1.0, len(content) / max(1, len(replaced) if isinstance(replaced, str) else 1))
        if isinstance(prepended := step.get("prepend"), str):
            longer *= max(1.0, len(prepended) / 8)
    if longer > MOST_LONGER:
        raise ValueError(f"{path.name} makes a text up to {longer:.3g} times as long; the limit is {MOST_LONGER}.")
    padding = values.get("padding")
    strategy = padding.get("strategy") if isinstance(padding, dict) else None
    for number in strategy.values() if isinstance(strategy, dict) else ():
        if not isinstance(number, int) or number > MOST_PADDING:
            raise ValueError(
                f"{path.name} pads texts to {clip(str(number), 40)} tokens; the limit is {MOST_PADDING:,}."
            )


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """A normalizer's steps, those of its sequences too."""
    if isinstance(normalizer, dict):
        yield normalizer
        inner = normalizer.get("normalizers")
        for each in inner if isinstance(inner, list) else ():
            yield from _steps(each)
