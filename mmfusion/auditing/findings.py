"""The findings of an audit, and their report."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmfusion.files import write_json, write_text

#: ``error``: metrics on these data are invalid, or training rejects the rows; ``warning``: check before trusting them;
#: ``note``: information.
SEVERITIES = ("error", "warning", "note")
_SHOWN = 5
_LISTED = 8


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: Name of the check, as in ``docs/audit.md``.
        severity: One of :data:`SEVERITIES`.
        message: The finding in one line.
        fix: What to do.
        rows: Ids of the affected rows, pairs joined by `` = ``; all of them in ``audit.json``.
        details: Numbers of the message.
    """

    check: str
    severity: str
    message: str
    fix: str = ""
    rows: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Audit:
    """The outcome of an audit.

    Attributes:
        source: The table.
        rows: Number of its rows (cases).
        used: Number of rows without problems, on which all other checks are based.
        split: Origin of the split: ``table``, ``drawn`` or ``random``.
        fingerprint: Hash of the checked rows, as in a run's ``provenance.json``.
        findings: The findings, errors first.
        classes: Label -> split -> rows.
        missing: Column -> share of rows without a value, including ``image`` and ``text``.
        columns: Column -> ``removed``, the share of the label's uncertainty that it removes; ``settled``, the share of
            the rows whose label it determines; ``input``, whether it is part of the text.
        images: Number of images, and how many have each size and mode.
        output: Folder of ``audit.md`` and ``audit.json``; None if they were not written.
    """

    source: str
    rows: int
    used: int
    split: str
    fingerprint: str
    findings: list[Finding]
    classes: dict[str, dict[str, int]]
    missing: dict[str, float]
    columns: dict[str, dict[str, Any]]
    images: dict[str, Any]
    output: str | None = None

    def __post_init__(self) -> None:
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def counts(self) -> str:
        """How many findings there are: ``2 errors, 1 warning, 0 notes``."""
        counts = [(len(self.of(severity)), severity) for severity in SEVERITIES]
        return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts)

    def summary(self) -> str:
        """The findings for the screen, one line each."""
        lines = [f"{self.source}: {self.rows:,} rows, {self._split_line()}: {self.counts()}"]
        lines += [f"  {finding.severity:8}{finding.check}: {finding.message}" for finding in self.findings]
        if self.output is not None:
            lines.append(f"{Path(self.output) / 'audit.md'} explains what to do; audit.json lists every row")
        return "\n".join(lines)

    def write(self, folder: str | Path) -> None:
        """Write ``audit.json`` (complete) and ``audit.md`` (readable) to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = {name: value for name, value in asdict(self).items() if name != "output"}
        write_json(folder / "audit.json", values, indent=1)
        write_text(folder / "audit.md", self.markdown())

    def markdown(self) -> str:
        """The readable report."""
        used = f"{self.rows:,} rows, {self.used:,} of them valid"
        lines = [f"# Audit of {self.source}", "", f"{used}; {self._split_line()}. {self.counts()}.", ""]
        lines += ["The criterion of each finding is in mmfusion's `docs/audit.md`.", ""]
        for severity in SEVERITIES:
            found = self.of(severity)
            lines += [f"## {severity.capitalize()}s", ""] if found else []
            for finding in found:
                lines += [f"### {finding.check}", "", finding.message, ""]
                lines += [f"**What to do:** {finding.fix}", ""] if finding.fix else []
                if finding.rows:
                    more = len(finding.rows) - _SHOWN
                    rest = f" and {more:,} more (`audit.json`)" if more > 0 else ""
                    lines += [f"Rows: {', '.join(f'`{row}`' for row in finding.rows[:_SHOWN])}{rest}", ""]
        splits = list(dict.fromkeys(name for counts in self.classes.values() for name in counts))
        lines += ["## Classes", ""]
        lines += _table(["class", *splits], ([label, *counts.values()] for label, counts in self.classes.items()))
        if self.columns:
            lines += ["## Columns", "", "How well each column alone predicts the label of held-out rows.", ""]
            header = ["column", "missing", "uncertainty removed", "rows determined", "in the text"]
            lines += _table(header, (self._column(name, values) for name, values in self.columns.items()))
        others = ([name, f"{share:.1%}"] for name, share in self.missing.items() if name not in self.columns)
        lines += ["## Missing", "", *_table(["what", "missing"], others)]
        if self.images.get("images"):
            lines += ["## Images", "", f"{self.images['images']:,} files.", ""]
            for kind in ("sizes", "modes"):
                lines += _table([kind, "files"], list(self.images[kind].items())[:_LISTED])
        return "\n".join(lines).rstrip() + "\n"

    def _column(self, name: str, values: Mapping[str, Any]) -> list[str]:
        missing = f"{self.missing[name]:.1%}" if name in self.missing else ""
        told = f"{max(values['removed'], 0):.1%}", f"{values['settled']:.1%}"
        return [name, missing, *told, "yes" if values["input"] else ""]

    def _split_line(self) -> str:
        totals: Counter[str] = Counter()
        for counts in self.classes.values():
            totals.update(counts)
        how = {"table": "split of the data", "drawn": "split drawn as in a run", "random": "rows split at random"}
        return f"{how[self.split]} ({', '.join(f'{name} {count:,}' for name, count in totals.items())})"


def _table(header: Sequence[str], rows: Iterable[Iterable[Hashable]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]
