"""Findings about the split: groups in several splits, classes with too few rows."""

import re
from collections.abc import Iterator

from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.findings import Finding
from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.labels import label_faults
from mmfusion.text.template import join_text

#: Classes with fewer rows in a split have unreliable metrics.
FEW = 10
#: Texts with more words exceed the default ``processor.max_length`` of 256 tokens, including two special ones.
WORDS = 254
_GROUP_NAME = re.compile(r"(^|[_\W])(patient|lesion|subject|person|case|study|exam|group)s?([_\W]|$|id)", re.IGNORECASE)


def class_counts(data: AuditedData) -> dict[str, dict[str, int]]:
    """Label -> split -> rows."""
    frame, splits = data.frame, list(data.cases.splits)
    counts = frame.groupby(["label", "split"]).size()
    labels = sorted(set(frame["label"]))
    return {label: {split: int(counts.get((label, split), 0)) for split in splits} for label in labels}


def check_groups(data: AuditedData) -> Iterator[Finding]:
    """Groups that are in several splits."""
    if data.frame["group"].notna().any():
        groups, leaked = _shared(data, "group")
        if groups:
            shown = f"{len(leaked):,} rows outside training belong to a group that is also in training"
            message = f"{groups:,} groups are in more than one split; {shown}"
            fix = "Split by group: remove the split column, or write a split with mmfusion split."
            yield Finding("group_overlap", "error", message, fix, leaked, {"groups": groups, "rows": len(leaked)})
        return
    for name in data.cases.metadata:
        groups, leaked = _shared(data, name) if _GROUP_NAME.search(name) else (0, [])
        if leaked:
            where = f"{groups:,} of its values are in more than one split ({len(leaked):,} rows outside training)"
            fix = f"If it identifies a patient or a lesion, set dataset.group_column: {name}."
            yield Finding("possible_group", "warning", f"{name!r} looks like a group, and {where}", fix, leaked)
    message = "no column identifies the rows of a patient, so they may be in different splits"
    called = [repr(name) for name in data.cases.metadata if _GROUP_NAME.search(name)]
    meant = f" ({' or '.join(called)} by the name)" if called else ""
    fix = f"Set dataset.group_column if there are several rows per patient{meant}."
    yield Finding("no_group", "note", message, fix)


def group_lines(cases: CaseTable, dataset: DatasetConfig) -> list[str]:
    """Log lines about groups before a run: their column, or findings about them."""
    groups = cases.frame["group"].dropna()
    lines = []
    if len(groups):
        named = dataset.group_column or dataset.study_column
        how = "" if named else ", by its name; dataset.group_column none disables groups"
        lines.append(f"groups: {groups.nunique():,} in {len(groups):,} rows (column {named or 'group'!r}{how})")
    findings = check_groups(AuditedData(cases, dataset, {}))
    return lines + [f"{found.severity}: {found.message}. {found.fix}" for found in findings]


def _shared(data: AuditedData, column: str) -> tuple[int, list[str]]:
    """Number of values of a column in several splits; ids of rows outside training with a value from training."""
    frame = data.frame.loc[data.frame[column].notna(), ["id", "split", column]]
    is_torn = frame.groupby(column)["split"].transform("nunique") > 1
    is_trained = frame[column].isin(frame.loc[frame["split"] == "train", column])
    leaked = frame[is_torn & is_trained & (frame["split"] != "train")]
    return int(frame.loc[is_torn, column].nunique()), leaked["id"].tolist()


def check_labels(data: AuditedData) -> Iterator[Finding]:
    """Labels that training rejects as class names."""
    for fault in label_faults(data.labels, data.dataset.label_column) if not data.dataset.label_map else ():
        message, _, fix = fault.rpartition("; ")
        yield Finding("no_classes", "error", message, f"{fix[0].upper()}{fix[1:]}.")


def check_texts(data: AuditedData) -> Iterator[Finding]:
    """Texts that exceed a model's default token budget."""
    joined = [join_text(sentence, text) for sentence, text in zip(data.sentences, data.frame["text"], strict=True)]
    lengths = [len(text.split()) for text in joined if text is not None]
    if cut := sum(length > WORDS for length in lengths):
        share = f"{cut:,} of {len(lengths):,} texts ({cut / len(lengths):.0%})"
        message = f"{share} have more than {WORDS} words, the longest {max(lengths):,}: they are truncated by default"
        fix = "Increase processor.max_length, or shorten the texts."
        yield Finding("long_texts", "warning", message, fix)


def check_classes(data: AuditedData) -> Iterator[Finding]:
    """Classes without rows, or with few rows, in a split."""
    counts = class_counts(data)
    if len(counts) == 1:
        message = f"every row is {next(iter(counts))}: there is nothing to predict"
        yield Finding("one_class", "error", message, "Check dataset.label_column.")
    for split in data.cases.splits:
        absent = [label for label, rows in counts.items() if not rows[split]]
        few = {label: rows[split] for label, rows in counts.items() if 0 < rows[split] < FEW}
        if absent:
            fix = "Its metrics do not cover these classes; draw another split, or merge classes."
            yield Finding("class_absent", "warning", f"{split} has no row of {', '.join(absent)}", fix)
        if few:
            named = ", ".join(f"{label} ({rows})" for label, rows in few.items())
            fix = "Metrics of these classes are unreliable; use folds (mmfusion split --folds) and pool them."
            yield Finding("class_tail", "warning", f"{split} has fewer than {FEW} rows of {named}", fix)
