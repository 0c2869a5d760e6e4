"""What a ladder gave: the leaderboard, its winner, and what is said of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.evaluation.metrics import METRICS
from mmfusion.inference.predictor import Predictor
from mmfusion.markdown import aligned_table
from mmfusion.results import Evaluation, Intervals

if TYPE_CHECKING:
    import pandas as pd

#: figures that the table on the screen shows, beside the one that it is sorted by.
SHOWN = ("balanced_accuracy", "accuracy", "nll")


@dataclass(frozen=True)
class Entry:
    """One rung of the ladder.

    Attributes:
        name: ``prior``, ``gradient_boosting``, ``logistic_regression``, a modality, ``fusion`` or ``ensemble``.
        about: What it is, in words; of one that was left out, why.
        is_network: Whether it may win; the others are lines to beat.
        intervals: Figures on the validation rows; None where it was left out.
        seconds: What it took.
    """

    name: str
    about: str
    is_network: bool
    intervals: Intervals | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Leaderboard:
    """The result of a ladder.

    Attributes:
        folder: Its folder: ``leaderboard.csv``, ``best``, ``steps``, ``audit``.
        entries: Every rung, the best first, those that were left out last.
        metric: What they are sorted by.
        rows: Number of validation rows.
        winner: The network in ``best``; None where none was trained.
        test: The winner on the test rows, which it was measured on once; None without test rows or winner.
        seconds: What the call took.
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
        """The winner, loaded when it is first asked for."""
        return Predictor.from_pretrained(f"local-dir:{self.best}")

    def frame(self) -> pd.DataFrame:
        """A row for each rung: ``name, about, is_network, seconds``, and each metric with the ends of its interval."""
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
        """The rungs that were climbed, for the screen."""
        shown = list(dict.fromkeys((self.metric, *SHOWN)))
        head = ["", *(METRICS[name].title for name in shown), "time", "what it is"]
        done = [entry for entry in self.entries if entry.intervals is not None]
        cells = [
            [
                f"{entry.name}{'' if entry.is_network else ' (to beat)'}",
                *(entry.intervals[name].text() for name in shown if entry.intervals is not None),
                f"{entry.seconds:.0f} s",
                entry.about,
            ]
            for entry in done
        ]
        return aligned_table(head, cells)

    def summary(self) -> str:
        """Table, what was left out, winner and folder."""
        lines = ["", f"on {self.rows:,} validation rows, 95 % intervals over whole groups:", "", self.table(), ""]
        lines += [f"{entry.name}: {entry.about}" for entry in self.entries if entry.intervals is None]
        if self.winner is None:
            return "\n".join([*lines, f"no network was trained; the leaderboard is {self.folder}/leaderboard.csv"])
        lines.append(f"winner: {self.winner}, in {self.best}; validation rows chose it, so that its figures flatter it")
        if (beaten := self._line_to_beat()) is not None:
            lines.append(beaten)
        if self.test is not None:
            figures = ", ".join(f"{name} {figure}" for name, figure in self.test.intervals.figures.items())
            lines.append(f"winner on {self.test.n:,} test rows: {figures}")
        return "\n".join([*lines, f"the leaderboard is {self.folder}/leaderboard.csv"])

    def _line_to_beat(self) -> str | None:
        """A warning where something without a network stands above the winner."""
        first = self.entries[0]
        if first.is_network:
            return None
        return f"{first.name} stands above it: no network is better than what needs none"
