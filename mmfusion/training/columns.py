"""Selects the table columns used as inputs, their types, and the reasons to exclude others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmfusion.artifacts.card import column_words
from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.leaks import identifies, judge_cells, leak_words
from mmfusion.data import CaseTable, DatasetConfig
from mmfusion.data.cases import NORMAL_COLUMNS
from mmfusion.data.table_columns import TableColumns, has_decimal_comma, read_number
from mmfusion.inference.columns import ROW_KEYS
from mmfusion.names import did_you_mean
from mmfusion.text.guard import LeakGuard, list_synonyms, read_synonyms

logger = logging.getLogger(__name__)

#: Minimum share of numeric cells of a numeric column; half if the user declares it numeric.
_NUMBERS, _NUMBERS_AT_LEAST = 0.95, 0.5
#: Whole numbers within a range of at most this width are codes, such as grades, and treated as categories.
_CODES = 10
#: Minimum share of dates among the cells of a date column.
_DATES = 0.9
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))"
    r"([T ].*)?"
)
_ID_NAME = re.compile(r"(^|_|\b)(id|ids|mrn|uid|uuid|pid|accession)(_|\b|$)")
_FOLD_NAME = re.compile(r"(^|_)(fold|split|subset|partition)s?$")
_MISSING = "(missing)"
#: Class names shorter than this are not searched in column names.
_SHORTEST = 3


@dataclass(frozen=True)
class ChosenColumns:
    """The input columns of a run.

    Attributes:
        table: The columns fitted to the training rows; None if none are requested.
        taken: Column -> how it is encoded, in words.
        left_out: Column -> why it is excluded.
        codes: Columns of whole numbers treated as categories by default.
    """

    table: TableColumns | None = None
    taken: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Both lists, one line per column; empty without columns."""
        width = max(map(len, [*self.taken, *self.left_out]), default=0)
        blocks = {"columns used as inputs": self.taken, "columns excluded": self.left_out}
        lines = []
        for title, columns in blocks.items():
            lines += [f"{title}:"] if columns else []
            lines += [f"  {name:{width}}  {words}" for name, words in columns.items()]
        if self.codes:
            named = ", ".join(self.codes)
            how = "are treated as categories; use dataset.numeric_columns to treat them as numbers"
            lines.append(f"  whole numbers with few values ({named}) {how}")
        return "\n".join(lines)


def choose_columns(cases: CaseTable, dataset: DatasetConfig, min_patients: int = 5) -> ChosenColumns:
    """Select the input columns from the training rows; only columns that reveal the split are found on all rows.

    Args:
        cases: The rows, all with a split.
        dataset: Columns requested.
        min_patients: Minimum number of patients (groups) in the training rows that share a value of a vocabulary.

    Raises:
        ValueError: A named column does not exist or is not suitable, or no column is left.
    """
    if not dataset.reads_columns:
        return ChosenColumns()
    named, everything = dataset.named_columns, cases.metadata
    _refuse_unknown(named, cases, dataset)
    data = AuditedData(cases.select("train"), dataset, {})
    wanted = everything if dataset.table_columns == "auto" else named
    reasons = dict(_reasons_against(data, sorted(wanted), min_patients))
    told = [name for name in wanted if name not in reasons and _tells_split(cases, name)]
    reasons |= dict.fromkeys(told, "reveals the split of a row: each of its values is in one split only")
    if refused := {name: reason for name, reason in reasons.items() if name in named}:
        why = "; ".join(f"{name!r} {reason}" for name, reason in refused.items())
        if dataset.on_bad_column == "fail":
            raise ValueError(f"{cases.source}: unsuitable columns are named as inputs: {why}. Remove them.")
        logger.warning("%s: used despite a problem, since they are named as inputs: %s", cases.source, why)
        reasons = {name: reason for name, reason in reasons.items() if name not in refused}
    taken = [name for name in wanted if name not in reasons]
    if not taken:
        why = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items()) or "there are no further columns"
        raise ValueError(f"{cases.source}: dataset.table_columns auto finds no suitable column: {why}.")
    cells = {name: data.frame[name].tolist() for name in taken}
    numeric = [name for name in taken if name in dataset.numeric_columns or _is_numeric(cells[name], name, dataset)]
    table = TableColumns.fit(
        cells,
        numeric=numeric,
        categorical=set(taken).difference(numeric),
        groups=data.frame["group"].tolist(),
        min_patients=min_patients,
    )
    found = set(table.names).difference(numeric, dataset.categorical_columns)
    codes = [name for name in sorted(found) if not any(_is_no_number(cell) for cell in cells[name] if cell is not None)]
    return ChosenColumns(table, _words(table, cells), reasons, codes)


def _refuse_unknown(named: Sequence[str], cases: CaseTable, dataset: DatasetConfig) -> None:
    for name in named:
        if name in dataset.roles:
            raise ValueError(
                f"Column {name!r} is {dataset.roles[name]} and cannot also be an input; leave it out of the columns."
            )
        if name in NORMAL_COLUMNS:
            raise ValueError(f"Column {name!r} cannot be an input: the name is reserved for the {name} of a row.")
        if name not in cases.metadata:
            raise ValueError(f"{cases.source} has no column {name!r}; {did_you_mean(name, cases.metadata)}")


def _reasons_against(data: AuditedData, names: Sequence[str], min_patients: int) -> Iterator[tuple[str, str]]:
    """Columns that are unsuitable as inputs, judged on the training rows -> the reason."""
    roles, dataset = data.dataset.roles, data.dataset
    cells = {name: data.frame[name].tolist() for name in names}
    judged = {}
    for name, column in cells.items():
        present = [cell for cell in column if cell is not None]
        forced = {"number": name in dataset.numeric_columns, "category": name in dataset.categorical_columns}
        if name in roles:
            yield name, f"is {roles[name]}"
        elif name in ROW_KEYS:
            yield name, "has a reserved name"
        elif _FOLD_NAME.search(name.lower()):
            yield name, "reveals the split of a row, by its name"
        elif not present:
            yield name, "is empty in the training rows"
        elif reason := (
            _shape(present, **forced)
            or _identity(name, column, data.groups)
            or _constant(column, data.groups, min_patients)
        ):
            yield name, reason
        else:
            judged[name] = column
    evidence, guard = judge_cells(data, judged), _label_words(data)
    for name in judged:
        found, told = evidence.get(name), [*guard.leaking([name]), *guard.find(name)]
        if found is not None and found.is_leak:
            yield name, leak_words(found)
        elif told and found is not None and found.is_sure:
            removed = f"removes {found.removed:.0%} of its uncertainty"
            yield name, f"reveals the label, by its name ({told[0]!r}), and {removed}"
        elif told and name not in dataset.named_columns:
            yield name, f"reveals the label, by its name ({told[0]!r})"


def _label_words(data: AuditedData) -> LeakGuard:
    """Words for diagnoses: the class names, and the terms known for the medical fields."""
    known = {label: terms for field in list_synonyms() for label, terms in read_synonyms(field).items()}
    classes = [label for label in sorted(set(data.labels.tolist())) if len(label) >= _SHORTEST]
    return LeakGuard([*classes, *known], known)


def _identity(name: str, cells: Sequence[str | None], groups: np.ndarray) -> str | None:
    """Why a column identifies a row or a patient, or None."""
    present = [cell for cell in cells if cell is not None]
    values, patients = len(set(present)), len(np.unique(groups))
    if identifies(cells):
        return f"identifies rows: {values:,} distinct texts in {len(present):,} cells ({_examples(present)})"
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if _ID_NAME.search(words) and values > max(_CODES, patients / 20):
        return f"identifies rows or patients, by its name and {values:,} distinct values"
    numbers = np.array([read_number(cell) for cell in cells])
    if len(cells) >= 20 and np.ptp(numbers) < 2 * len(cells) and (np.diff(numbers) > 0).all():
        return f"numbers the rows, {numbers[0]:g} to {numbers[-1]:g}"
    return None


def _shape(present: Sequence[str], *, number: bool, category: bool) -> str | None:
    """Why a column is neither numeric nor categorical, or None."""
    readable = np.mean([not np.isnan(read_number(cell)) for cell in present])
    if np.mean([_DATE.fullmatch(cell) is not None for cell in present]) >= _DATES:
        return f"contains dates ({_examples(present)}), which encode when a row was collected"
    if np.mean([has_decimal_comma(cell) for cell in present]) > 1 - _NUMBERS and not category:
        return f"uses a decimal comma ({_examples(present, has_decimal_comma)}); write a decimal point"
    if number and readable < _NUMBERS_AT_LEAST:
        return f"is not a number in {1 - readable:.0%} of its cells ({_examples(present, _is_no_number)})"
    return None


def _constant(cells: Sequence[str | None], groups: np.ndarray, min_patients: int) -> str | None:
    """Why a column is constant (apart from the rows of a few patients), or None."""
    filled = [cell if cell is not None else _MISSING for cell in cells]
    values, counts = np.unique(np.array(filled, dtype=object).astype(str), return_counts=True)
    commonest = str(values[counts.argmax()])
    if len(values) == 1:
        return f"has one value ({commonest})"
    others = len(np.unique(groups[[cell != commonest for cell in filled]]))
    if others < min_patients:
        return f"has one value ({commonest}) in all but {others} patients (privacy.min_patients {min_patients})"
    present = [cell for cell in cells if cell is not None]
    if all(not np.isnan(read_number(cell)) for cell in present):
        return None
    patients: dict[str, set[int]] = {}
    for cell, group in zip(cells, groups.tolist(), strict=True):
        if cell is not None:
            patients.setdefault(cell, set()).add(group)
    if np.mean([not np.isnan(read_number(cell)) for cell in present]) >= _NUMBERS:
        return None
    rare = np.mean([len(patients[cell]) < min_patients for cell in present])
    if rare > 0.5:
        few = f"fewer than {min_patients} patients (privacy.min_patients) share the value"
        return f"contains almost unique texts: in {rare:.0%} of its cells {few} ({_examples(present)})"
    return None


def _tells_split(cases: CaseTable, name: str) -> bool:
    """Whether each of at least two values is in one split only, so that nothing learned from it carries over."""
    frame = cases.frame[[name, "split"]].dropna()
    if frame[name].nunique() > max(20, len(frame) // 20) or frame[name].value_counts().min() < 5:
        return False
    homes = frame.groupby(name)["split"].agg(["nunique", "first"])
    return bool((homes["nunique"] == 1).all() and homes["first"].nunique() > 1)


def _is_numeric(cells: Sequence[str | None], name: str, dataset: DatasetConfig) -> bool:
    """Whether a column is numeric rather than a few codes."""
    numbers = np.array([read_number(cell) for cell in cells if cell is not None])
    found = numbers[~np.isnan(numbers)]
    if name in dataset.categorical_columns or not len(found) or len(found) < _NUMBERS * len(numbers):
        return False
    return not _are_codes(found)


def _are_codes(numbers: np.ndarray) -> bool:
    """Whether numbers are whole and within a small range: grades, stages, yes and no."""
    return bool((numbers == np.round(numbers)).all() and np.ptp(numbers) < _CODES)


def _words(table: TableColumns, cells: Mapping[str, Sequence[str | None]]) -> dict[str, str]:
    """Column -> its encoding in words, and the share of missing training rows."""
    words = column_words(table.to_dict())
    for name in words:
        if missing := cells[name].count(None):
            words[name] += f"; {missing / len(cells[name]):.1%} missing"
    return dict(sorted(words.items()))


def _is_no_number(cell: str) -> bool:
    return bool(np.isnan(read_number(cell)))


def _examples(cells: Sequence[str], chosen: Any = None) -> str:
    return ", ".join(map(repr, list(dict.fromkeys(filter(chosen, cells)))[:3]))


def with_column_names(config: DatasetConfig, table: TableColumns | None) -> DatasetConfig:
    """The data set with the selected columns by name, as stored in a saved model."""
    if table is None:
        return config
    numeric, categorical = ([column.name for column in columns] for columns in (table.numeric, table.categorical))
    return replace(config, table_columns=None, numeric_columns=numeric, categorical_columns=categorical)
