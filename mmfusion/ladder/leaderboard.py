"""Result of ``mmfusion auto``: the leaderboard and its winner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.evaluation.metrics import METRICS
from mmfusion.figures import Intervals
from mmfusion.inference.predictor import Predictor
from mmfusion.markdown import aligned_table
from mmfusion.results import Evaluation

if TYPE_CHECKING:
    import pandas as pd

#: Metrics in the printed table, besides the one used for sorting.
SHOWN = ("balanced_accuracy", "accuracy", "nll")


@dataclass(frozen=True)
class Entry:
    """One entry of the leaderboard.

    Attributes:
        name: ``prior``, ``gradient_boosting``, ``logistic_regression``, a modality, ``fusion`` or ``ensemble``.
        about: Description, or the reason for skipping it.
        is_network: Whether it can win; the others are baselines.
        intervals: Metrics on the validation rows; None if skipped.
        seconds: Duration.
    """

    name: str
    about: str
    is_network: bool
    intervals: Intervals | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Leaderboard:
    """Result of ``mmfusion auto``.

    Attributes:
        folder: Output folder: ``leaderboard.csv``, ``best``, ``steps``, ``audit``.
        entries: All entries, best first and skipped ones last.
        metric: Metric used for sorting.
        rows: Number of validation rows.
        winner: The network in ``best``; None if none was trained.
        test: Evaluation of the winner on the test rows, done once; None without test rows or winner.
        seconds: Duration of the call.
    """

    folder: Path
    entries: list[Entry]
    metric: str
    rows: int
    winner: str | None
    test: Evaluation | None
    seconds: float

    @property
    def best(self) -> Path:
        """Folder of the winner."""
        return self.folder / "best"

    @cached_property
    def predictor(self) -> Predictor:
        """The winner, loaded on first access."""
        return Predictor.from_pretrained(f"local-dir:{self.best}")

    def frame(self) -> pd.DataFrame:
        """One row per entry: ``name, about, is_network, seconds``, and each metric with the ends of its interval."""
        import pandas as pd

        lines = []
        for entry in self.entries:
            line: dict[str, Any] = {"name": entry.name, "about": entry.about, "is_network": entry.is_network}
            line |= {"seconds": round(entry.seconds, 1)}
            for metric in METRICS:
                found = entry.intervals[metric] if entry.intervals is not None else None
                ends = (found.value, found.low, found.high) if found is not None else (None, None, None)
                line |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), ends, strict=True))
            lines.append(line)
        return pd.DataFrame(lines)

    def table(self) -> str:
        """The evaluated entries as text."""
        shown = list(dict.fromkeys((self.metric, *SHOWN)))
        head = ["", *(METRICS[name].title for name in shown), "time", "description"]
        done = [entry for entry in self.entries if entry.intervals is not None]
        cells = [
            [
                f"{entry.name}{'' if entry.is_network else ' (baseline)'}",
                *(entry.intervals[name].text() for name in shown if entry.intervals is not None),
                f"{entry.seconds:.0f} s",
                entry.about,
            ]
            for entry in done
        ]
        return aligned_table(head, cells)

    def summary(self) -> str:
        """Table, skipped entries, winner and folder."""
        lines = ["", f"on {self.rows:,} validation rows, 95 % intervals over groups:", "", self.table(), ""]
        lines += [f"{entry.name}: {entry.about}" for entry in self.entries if entry.intervals is None]
        if self.winner is None:
            return "\n".join([*lines, f"no network was trained; leaderboard: {self.folder}/leaderboard.csv"])
        lines.append(
            f"winner: {self.winner}, in {self.best}; its validation metrics are optimistic (used for selection)"
        )
        if (beaten := self._line_to_beat()) is not None:
            lines.append(beaten)
        if self.test is not None:
            figures = ", ".join(f"{name} {figure}" for name, figure in self.test.intervals.figures.items())
            lines.append(f"winner on {self.test.n:,} test rows: {figures}")
        return "\n".join([*lines, f"leaderboard: {self.folder}/leaderboard.csv"])

    def _line_to_beat(self) -> str | None:
        """A warning if a baseline is better than the winner."""
        first = self.entries[0]
        if first.is_network:
            return None
        return f"{first.name} is better: no network beats this baseline"
