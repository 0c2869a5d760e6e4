"""Findings about the split: groups in several splits, classes with too few rows."""

import re
from collections.abc import Iterator

from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.findings import Finding
from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.labels import label_faults
from mmfusion.text.template import join_text

#: fewer rows of a class than this make its figures a matter of chance.
FEW = 10
#: a text of more words is longer than the default ``processor.max_length``, 256 tokens with two special ones.
WORDS = 254
_GROUP_NAME = re.compile(r"(^|[_\W])(patient|lesion|subject|person|case|study|exam|group)s?([_\W]|$|id)", re.IGNORECASE)


def class_counts(data: AuditedData) -> dict[str, dict[str, int]]:
    """Label -> split -> rows."""
    frame, splits = data.frame, list(data.cases.splits)
    counts = frame.groupby(["label", "split"]).size()
    labels = sorted(set(frame["label"]))
    return {label: {split: int(counts.get((label, split), 0)) for split in splits} for label in labels}


def check_groups(data: AuditedData) -> Iterator[Finding]:
    """Groups of which a part is in one split and a part in another."""
    if data.frame["group"].notna().any():
        groups, leaked = _shared(data, "group")
        if groups:
            shown = f"{len(leaked):,} rows outside training show a group that training shows too"
            message = f"{groups:,} groups lie in more than one split; {shown}"
            fix = "Split by group: leave out the split column, or write a split with mmfusion split."
            yield Finding("group_overlap", "error", message, fix, leaked, {"groups": groups, "rows": len(leaked)})
        return
    for name in data.cases.metadata:
        groups, leaked = _shared(data, name) if _GROUP_NAME.search(name) else (0, [])
        if leaked:
            where = f"{groups:,} of its values lie in more than one split ({len(leaked):,} rows outside training)"
            fix = f"If it names a patient or a lesion, set dataset.group_column: {name}."
            yield Finding("possible_group", "warning", f"{name!r} looks like a group, and {where}", fix, leaked)
    message = "no column says which rows belong to one patient, so that nothing keeps them in one split"
    called = [repr(name) for name in data.cases.metadata if _GROUP_NAME.search(name)]
    meant = f" ({' or '.join(called)} by the name)" if called else ""
    fix = f"Name one with dataset.group_column where there are several rows a patient{meant}."
    yield Finding("no_group", "note", message, fix)


def group_lines(cases: CaseTable, dataset: DatasetConfig) -> list[str]:
    """What is to be said of groups before a run: which column they are, or what the audit finds of them."""
    groups = cases.frame["group"].dropna()
    lines = []
    if len(groups):
        named = dataset.group_column or dataset.study_column
        how = "" if named else ", by its name; dataset.group_column none takes no groups"
        lines.append(f"groups: {groups.nunique():,} in {len(groups):,} rows (column {named or 'group'!r}{how})")
    findings = check_groups(AuditedData(cases, dataset, {}))
    return lines + [f"{found.severity}: {found.message}. {found.fix}" for found in findings]


def _shared(data: AuditedData, column: str) -> tuple[int, list[str]]:
    """How many values of a column lie in several splits; ids of rows outside training whose value training has too."""
    frame = data.frame.loc[data.frame[column].notna(), ["id", "split", column]]
    is_torn = frame.groupby(column)["split"].transform("nunique") > 1
    is_trained = frame[column].isin(frame.loc[frame["split"] == "train", column])
    leaked = frame[is_torn & is_trained & (frame["split"] != "train")]
    return int(frame.loc[is_torn, column].nunique()), leaked["id"].tolist()


def check_labels(data: AuditedData) -> Iterator[Finding]:
    """Labels that training refuses as names of classes."""
    for fault in label_faults(data.labels, data.dataset.label_column) if not data.dataset.label_map else ():
        message, _, fix = fault.rpartition("; ")
        yield Finding("no_classes", "error", message, f"{fix[0].upper()}{fix[1:]}.")


def check_texts(data: AuditedData) -> Iterator[Finding]:
    """Texts that are surely longer than the token budget that a model has by default."""
    joined = [join_text(sentence, text) for sentence, text in zip(data.sentences, data.frame["text"], strict=True)]
    lengths = [len(text.split()) for text in joined if text is not None]
    if cut := sum(length > WORDS for length in lengths):
        share = f"{cut:,} of {len(lengths):,} texts ({cut / len(lengths):.0%})"
        message = f"{share} have more than {WORDS} words, the longest {max(lengths):,}: a model cuts them by default"
        fix = "Give a larger processor.max_length, or shorter texts."
        yield Finding("long_texts", "warning", message, fix)


def check_classes(data: AuditedData) -> Iterator[Finding]:
    """Classes that a split lacks, or has few rows of."""
    counts = class_counts(data)
    if len(counts) == 1:
        message = f"every row is {next(iter(counts))}: there is nothing to tell apart"
        yield Finding("one_class", "error", message, "Is dataset.label_column the right one?")
    for split in data.cases.splits:
        absent = [label for label, rows in counts.items() if not rows[split]]
        few = {label: rows[split] for label, rows in counts.items() if 0 < rows[split] < FEW}
        if absent:
            fix = "Its figures say nothing about these classes; draw another split, or merge classes."
            yield Finding("class_absent", "warning", f"{split} has no row of {', '.join(absent)}", fix)
        if few:
            named = ", ".join(f"{label} ({rows})" for label, rows in few.items())
            fix = "Figures of these classes are a matter of chance; use folds (mmfusion split --folds) and pool them."
            yield Finding("class_tail", "warning", f"{split} has fewer than {FEW} rows of {named}", fix)
