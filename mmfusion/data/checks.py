"""Reading step: problems visible in the normal form."""

from collections.abc import Iterator
from dataclasses import replace

from mmfusion.data.cases import CaseTable
from mmfusion.data.problems import Problem, ProblemKind
from mmfusion.data.reading import CaseReading
from mmfusion.text.template import render


def check_cases(reading: CaseReading) -> CaseReading:
    """List all further problems of the cases. A case with a broken line has that problem only."""
    reading = reading.with_problems(emptied_cases(reading.cases))
    found = [*_check_ids(reading), *_check_content(reading)]
    if reading.require_labels:
        found += _check_labels(reading)
        found = [*found, *_check_splits(reading, found)]
    reading = reading.with_problems([*found, *_check_groups(reading)])
    if reading.require_labels:
        reading = reading.with_problems(reading.cases.untrained_labels())
    problems = sorted(reading.cases.problems, key=lambda problem: problem.row)
    return replace(reading, cases=replace(reading.cases, problems=problems))


def emptied_cases(cases: CaseTable) -> list[Problem]:
    """A problem for each case that had images and has no usable one left."""
    parted = {problem.part_of for problem in cases.problems} - {None}
    rows = cases.frame[cases.frame["image"].isna() & cases.frame.index.isin(parted - cases.bad_rows)]
    kind, message = ProblemKind.STUDY_WITHOUT_IMAGES, "none of its images is usable"
    return [Problem.of_row(kind, row, id_, "image", None, message) for row, id_ in rows["id"].items()]


def _settled(cases: CaseTable, *kinds: ProblemKind) -> set[int]:
    """Rows with a problem of these kinds, or one that makes further checks pointless."""
    final = (*kinds, ProblemKind.BROKEN_LINE, ProblemKind.STUDY_WITHOUT_IMAGES)
    return {problem.row for problem in cases.problems if problem.kind in final}


def _check_ids(reading: CaseReading) -> Iterator[Problem]:
    columns, settled = reading.columns, _settled(reading.cases)
    first: dict[str, int] = {}
    for row, id_ in reading.cases.frame["id"].items():
        if row in settled:
            continue
        if id_ is None:
            yield Problem.of_row(ProblemKind.MISSING_ID, row, None, columns.id, None, "missing id")
        elif first.setdefault(id_, row) != row:
            message = f"duplicate id, first in row {first[id_]}"
            yield Problem.of_row(ProblemKind.DUPLICATE_ID, row, id_, columns.id or columns.image, id_, message)


def _check_content(reading: CaseReading) -> Iterator[Problem]:
    frame, config, settled = reading.cases.frame, reading.config, _settled(reading.cases)
    column, message = reading.columns.text or "text", "neither image nor text"
    empty = frame["image"].isna() & frame["text"].isna()
    if config.reads_columns:
        message = "no image, no text and no column"
        metadata = reading.cases.metadata if config.table_columns == "auto" else []
        read = {name for name in metadata if name not in config.roles}.union(config.named_columns) & set(frame.columns)
        empty &= frame[sorted(read)].isna().all(axis=1)
    for row in frame.index[empty]:
        if row in settled or render(
            config.text_template or reading.template or "", frame.loc[row].to_dict(), config.missing_values
        ):
            continue
        yield Problem.of_row(ProblemKind.NO_CONTENT, row, frame.at[row, "id"], column, None, message)


def _check_labels(reading: CaseReading) -> Iterator[Problem]:
    cases, column = reading.cases, reading.columns.label or "label"
    fault, known = cases.question.fault, cases.known_labels
    settled = _settled(cases, ProblemKind.UNKNOWN_LABEL, ProblemKind.STUDY_LABELS_DIFFER)
    for row, id_, label in cases.frame[["id", "label"]].itertuples(name=None):
        if row in settled:
            continue
        if label is None:
            yield Problem.of_row(ProblemKind.MISSING_LABEL, row, id_, column, None, "missing label")
        elif (message := fault(label, known)) is not None:
            yield Problem.of_row(ProblemKind.UNKNOWN_LABEL, row, id_, column, label, message)


def _check_splits(reading: CaseReading, found: list[Problem]) -> Iterator[Problem]:
    cases, split_table = reading.cases, reading.config.split_table
    if not cases.splits:
        return
    message, column = "missing split; expected train, val or test", reading.columns.split or "split"
    settled = _settled(cases, ProblemKind.UNKNOWN_SPLIT)
    if split_table is not None:
        message = f"the id is not in {split_table}"
        # rows that were bad when the split table was drawn are not in it and already have a problem
        settled |= {problem.row for problem in found}
    for row, id_ in cases.frame["id"][cases.frame["split"].isna()].items():
        if row not in settled:
            yield Problem.of_row(ProblemKind.MISSING_SPLIT, row, id_, column, None, message)


def _check_groups(reading: CaseReading) -> Iterator[Problem]:
    frame, kind = reading.cases.frame, ProblemKind.GROUP_IN_TWO_SPLITS
    grouped = frame[frame["group"].notna() & frame["split"].notna() & ~frame.index.isin(_settled(reading.cases))]
    home = grouped.groupby("group")["split"].transform("first")
    strays = grouped.assign(home=home)[grouped["split"] != home].drop_duplicates("group")
    for row, id_, group, split, home_split in strays[["id", "group", "split", "home"]].itertuples(name=None):
        message = f"the group is in {home_split} and in {split}: a leak between splits"
        yield Problem.of_row(kind, row, id_, reading.columns.group, group, message)
