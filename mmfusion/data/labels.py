"""Detection of labels that are not classes: spelling variants, numbers, several labels in a cell."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from mmfusion.names import natural_key
from mmfusion.text.template import cell_number

#: More distinct fractions than this are measurements rather than classes; so are more distinct whole numbers than
#: :data:`_MOST_CODES` with fewer than :data:`_ROWS_A_CODE` rows each.
_MOST_FRACTIONS, _MOST_CODES, _ROWS_A_CODE = 10, 20, 5
SEPARATORS = ("|", ";", ",")
_SHOWN = 20


def in_order(labels: Iterable[str]) -> list[str]:
    """Sort class names as text, or as numbers if all are numbers, such as grades."""
    names = sorted(labels)
    numbers = {name: cell_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return sorted(names, key=lambda name: (numbers[name], name))
    prefixes = {name.rstrip("0123456789") for name in names}
    # grades with a prefix: T1, T2, T10
    return sorted(names, key=natural_key) if len(prefixes) == 1 and len(names) > 1 else names


def label_faults(labels: Iterable[str | None], column: str) -> Iterator[str]:
    """Problems of the labels as class names, each one line with a fix.

    Args:
        labels: Label of each row.
        column: Name of the label column.
    """
    cells = [label for label in labels if label is not None]
    names = sorted(set(cells))
    yield from _spellings(names, column)
    numbers = [number for name in names if (number := cell_number(name)) is not None]
    if numbers and len(numbers) == len(names):
        whole = all(number == round(number) for number in numbers)
        many = len(names) > (_MOST_CODES if whole else _MOST_FRACTIONS)
        if many and (not whole or len(cells) < _ROWS_A_CODE * len(names)):
            yield (
                f"the label column {column!r} holds {len(names):,} different numbers ({min(numbers):g} to "
                f"{max(numbers):g}): this looks like a regression target; use --task regression, or "
                "make classes with dataset.label_map"
            )
        return
    if (found := separator_of(names)) is not None:
        yield (
            f"the label column {column!r} has several labels in a cell, such as {found[1]!r}; use --task multilabel, "
            "or make one class of each combination with dataset.label_map"
        )


def separator_of(names: Sequence[str]) -> tuple[str, str] | None:
    """The separator of several labels in one cell, and such a cell; None if each cell is one label."""
    for separator in SEPARATORS:
        parts = {name: {part.strip() for part in name.split(separator)} for name in names if separator in name}
        # a part is a label if it occurs alone or in two combinations; "carcinoma, basal cell" is one name
        cells_of = Counter(part for name in names for part in parts.get(name, {name}))
        several = [name for name, found in parts.items() if all(cells_of[part] > 1 for part in found)]
        if several:
            return separator, several[0]
    return None


def _spellings(names: list[str], column: str) -> Iterator[str]:
    """Names that differ only in case or spaces."""

    def plain(name: str) -> str:
        return "".join(name.casefold().split())

    alike = [list(group) for _, group in groupby(sorted(names, key=plain), key=plain)]
    if twice := [group for group in alike if len(group) > 1]:
        listed = "; ".join(" and ".join(map(repr, group)) for group in twice[:3])
        mapping = ", ".join(f"{name}: {group[-1]}" for group in alike for name in sorted(group))
        way = f"{{{mapping}}}" if len(names) <= _SHOWN else "{name: class, ...}"
        yield f"labels of {column!r} differ only in case or spaces: {listed}; merge them with dataset.label_map: {way}"
