"""Knowledge: passages to retrieve from, shipped or custom."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "knowledge"


@dataclass(frozen=True)
class Passage:
    """One passage of knowledge.

    Attributes:
        id: Name of the passage in reports.
        text: A few whole sentences.
        weight: Positive factor of the score; above 1 ranks the passage higher.
        tags: Additional search terms, which never enter a text; decades of age are ``40s``.
        source: Reference for the content.
    """

    id: str
    text: str
    weight: float = 1.0
    tags: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"The passage {self.id!r} has no text.")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"The passage {self.id!r} has weight {self.weight}; weights are positive numbers.")


def list_knowledge() -> list[str]:
    """Names of the shipped knowledge files."""
    return sorted(path.stem for path in _FOLDER.glob("*.jsonl"))


def read_knowledge(knowledge: str | Path) -> list[Passage]:
    """Read passages.

    Args:
        knowledge: A shipped name (:func:`list_knowledge`), or a ``.jsonl`` or ``.csv`` file, one passage per line:
            ``text``, and optionally ``id`` (default ``passage-N``), ``weight``, ``tags`` (a list, or words separated by
            ``;``) and ``source``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown name, no passages, or a passage that cannot be read; the message names its line.
    """
    from mmfusion.data.tables import read_table

    path = _FOLDER / f"{knowledge}.jsonl" if knowledge in list_knowledge() else Path(knowledge)
    if path.suffix.lower() not in (".jsonl", ".csv"):
        names = ", ".join(list_knowledge())
        raise ValueError(f"Unknown knowledge {str(knowledge)!r}; it is one of {names}, or a .jsonl or .csv file.")
    table = read_table(path)
    for row, reason in table.broken.items():
        raise ValueError(f"{path}, passage {row}: {reason}.")
    if "text" not in table.columns:
        raise ValueError(f"{path} has no column 'text'; it has {', '.join(table.columns)}.")
    passages = []
    for number, cells in enumerate(zip(*table.columns.values(), strict=True), start=1):
        try:
            passages.append(_passage(number, dict(zip(table.columns, cells, strict=True))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, passage {number}: {error}") from error
    ids = [passage.id for passage in passages]
    if repeated := sorted({id_ for id_ in ids if ids.count(id_) > 1}):
        raise ValueError(f"{path} has the passage id {', '.join(map(repr, repeated))} more than once.")
    return passages


def _passage(number: int, row: Mapping[str, Any]) -> Passage:
    text, tags, weight = row["text"], row.get("tags") or [], row.get("weight")
    if not isinstance(text, str):
        raise TypeError("the text is missing." if text is None else f"the text is a {type(text).__name__}.")
    weight = 1.0 if weight in (None, "") else float(weight)
    tags = tuple(str(tag).strip() for tag in (tags.split(";") if isinstance(tags, str) else tags))
    return Passage(
        str(row.get("id") or f"passage-{number}"), " ".join(text.split()), weight, tags, str(row.get("source") or "")
    )
