"""Markdown tables."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table without a trailing line break. A column may have an empty heading."""
    head = "|" + "|".join(f" {cell} " if cell else " " for cell in header) + "|"
    return "\n".join([head, "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows)])


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table with padded columns, readable as plain text."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    head, *body = ("| " + " | ".join(row) + " |" for row in padded)
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])
