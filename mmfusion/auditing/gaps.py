"""Findings about unusable rows, missing modalities and missing cells."""

from collections.abc import Iterator

import numpy as np

from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.findings import Finding
from mmfusion.data.cases import CaseTable
from mmfusion.data.problems import Problem, ProblemKind

#: p-value below which a difference between classes is reported ...
P_VALUE = 1e-3
#: ... if its size (Cramer's V) is at least this, since in large data sets tiny differences are significant.
EFFECT = 0.1
#: Kinds of bad rows with their own entry in ``docs/audit.md``.
_CHECKS = {ProblemKind.DUPLICATE_ID: "duplicate_id", ProblemKind.UNREADABLE_IMAGE: "unreadable_image"}
_EXPECTED = 5  # minimum expected count in a cell of a chi-square table


def check_rows(cases: CaseTable) -> Iterator[Finding]:
    """Rows that training rejects, by kind and column."""
    found: dict[tuple[ProblemKind, str], list[Problem]] = {}
    for problem in cases.problems:
        if not problem.warning:
            column = "" if problem.kind is ProblemKind.UNREADABLE_IMAGE else problem.column
            found.setdefault((problem.kind, column), []).append(problem)
    for (kind, column), problems in found.items():
        where = f" in {column!r}" if column else ""
        message = f"{len(problems):,} row{'' if len(problems) == 1 else 's'}{where}: {problems[0].message}"
        if kind is ProblemKind.DUPLICATE_ID:
            rows = cases.frame[cases.frame["id"].isin({problem.id for problem in problems})].groupby("id")
            labels, splits = ((rows[name].nunique() > 1).sum() for name in ("label", "split"))
            message += f"; {labels} of the ids have two labels, {splits} are in two splits"
        check = _CHECKS.get(kind, f"bad_row: {kind.value}")
        fix = "Fix them, or drop them with --on-bad-row skip."
        yield Finding(check, "error", message, fix, [f"{problem.id} (row {problem.row})" for problem in problems])


def missing_shares(data: AuditedData) -> dict[str, float]:
    """Modality or column -> share of rows without a value."""
    shares = {name: float(1 - present.mean()) for name, present in data.present().items()}
    return shares | {name: float(data.frame[name].isna().mean()) for name in data.cases.metadata}


def check_modalities(data: AuditedData) -> Iterator[Finding]:
    """Missing modalities and text columns, and whether they are missing more often in some classes."""
    present = data.present()
    for name, has in present.items():
        if 0 < has.sum() < len(has):
            message = f"{int((~has).sum()):,} of {len(has):,} rows ({1 - has.mean():.1%}) have no {name}"
            fix = "Models accept missing modalities; compare the metrics on complete rows."
            yield Finding("missing_modality", "note", message, fix, data.frame["id"][~has].tolist())
    columns = {name: data.frame[name].notna().to_numpy() for name in data.inputs}
    for name, has in {**present, **columns}.items():
        p_value, effect, shares = association(has, data.labels, data.groups)
        if p_value < P_VALUE and effect >= EFFECT:
            named = ", ".join(f"{label} {share:.0%}" for label, share in shares.items())
            told = f"reveals its label (Cramer's V {effect:.2f}, p {p_value:.1g}); missing: {named}"
            message = f"whether a row has {'an' if name == 'image' else 'a'} {name} {told}"
            fix = "Find out why. A model can learn from absence: drop the rows without it, or the modality."
            details = {"effect": effect, "p": p_value, "missing": shares}
            severity = "error" if name in present else "warning"
            yield Finding("missing_by_class", severity, message, fix, details=details)


def association(has: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Association of presence and class: Pearson's chi-square test.

    Rows of a group that agree in both count once. Classes too rare for the test (fewer than 5 rows expected in a cell)
    are pooled, and excluded if still too rare.

    Returns:
        p value, Cramer's V (1 and 0 if there is nothing to test), and label -> share of its rows that lack it.
    """
    from scipy.stats import chi2_contingency

    names = sorted(set(labels))
    shares = {str(name): float(1 - has[labels == name].mean()) for name in names}
    distinct = {(group, bool(there), label) for group, there, label in zip(groups, has, labels, strict=True)}
    table = np.array([[sum((t, n) == (there, name) for _, t, n in distinct) for name in names] for there in (0, 1)])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / max(table.sum(), 1)
    rare = expected.min(axis=0) < _EXPECTED
    kept = table[:, ~rare]
    pooled = table[:, rare].sum(axis=1, keepdims=True)
    if rare.any() and expected[:, rare].sum(axis=1).min() >= _EXPECTED:
        kept = np.concatenate([kept, pooled], axis=1)
    if kept.shape[1] < 2 or not kept.sum(axis=1).all():
        return 1.0, 0.0, shares
    test = chi2_contingency(kept, correction=False)
    return float(test.pvalue), float(np.sqrt(test.statistic / kept.sum())), shares
