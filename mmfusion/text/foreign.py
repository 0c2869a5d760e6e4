"""Checks of an untrusted tokenizer file: its size, and how much it lengthens texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfusion.names import clip
from mmfusion.untrusted import read_foreign_json

#: maximum size of tokenizer.json in bytes; the vocabularies of the largest language models take about 35 million.
MOST_TOKENIZER = 128 << 20
#: maximum factor by which a normalizer may lengthen a text, and maximum number of tokens to pad a text to.
MOST_LONGER = 64
MOST_PADDING = 1_000_000
#: texts for testing a tokenizer: words, numbers, signs, and characters that no vocabulary has.
PROBES = ("", "A 55-year-old, 3.5 cm (back)?", "xyzzyx \u0378 \U0001f9ec \t\n \ufffd")


def check_tokenizer(path: Path) -> None:
    """Check that a ``tokenizer.json`` cannot use excessive memory.

    Raises:
        ValueError: The file is not a JSON object, is too large, or makes texts many times longer.
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
    """A normalizer's steps, including those of nested sequences."""
    if isinstance(normalizer, dict):
        yield normalizer
        inner = normalizer.get("normalizers")
        for each in inner if isinstance(inner, list) else ():
            yield from _steps(each)
