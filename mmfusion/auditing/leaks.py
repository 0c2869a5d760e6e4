"""Findings about label leaks: in columns, ids and texts."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.findings import Finding
from mmfusion.data.splits import group_folds
from mmfusion.text.guard import LeakGuard

#: Share of the label's uncertainty that a column must remove on held-out rows to be a leak.
REMOVED = 0.5
#: Share of rows whose label a column must determine to be a leak.
SETTLED = 0.1
#: Columns below this share are not reported.
_TELLS = 0.01
_FOLDS = 5
_BINS = 32
_MOST_VALUES = 500  # a text column with more identifies rows
_STANDARD_ERRORS = 3.0
_RULED_OUT = 0.25  # classes with at least this share of the rows ...
_RARER = 10  # ... must be this many times rarer given a value that determines the label
_CONFIDENCE = 0.95
#: With fewer groups, the upper end of the interval of a share of 0 exceeds one in ``_RARER``.
_FEWEST = math.ceil(math.log(1 - _CONFIDENCE) / math.log(1 - 1 / _RARER))
_P_VALUE = 1e-3
_MISSING = "(missing)"


@dataclass
class Evidence:
    """Evidence of one column about the label.

    Attributes:
        removed: Share of the label's uncertainty (cross-entropy of the class shares, in nats) that the column removes
            on held-out rows; negative if it only adds noise.
        errors: ``removed`` in standard errors, with each group counted once.
        settled: Share of the rows whose value determines the label.
        values: The values that determine it.
    """

    removed: float
    errors: float
    settled: float
    values: list[str] = field(default_factory=list)

    @property
    def is_sure(self) -> bool:
        """Whether the evidence exceeds chance."""
        return self.removed >= _TELLS and self.errors >= _STANDARD_ERRORS

    @property
    def is_leak(self) -> bool:
        """Whether the evidence exceeds that of ordinary patient data."""
        return self.settled >= SETTLED or (self.removed >= REMOVED and self.is_sure)


def judge(
    codes: np.ndarray, names: Sequence[str], labels: np.ndarray, groups: np.ndarray, folds: np.ndarray
) -> Evidence:
    """Evidence of a column about the label.

    The label of a held-out row is predicted from the classes of the rows with the same value in the other folds, shrunk
    towards the class shares with the weight of one row, so a value not seen elsewhere predicts the class shares.

    A value determines the label if it makes classes that have a quarter of all rows or more ten times rarer than
    overall, by the upper end of a one-sided 95 % Clopper-Pearson interval in which each group counts once.

    Args:
        codes: (rows,) number of each row's value, assigned without using the labels.
        names: The values.
        labels: (rows,) number of each row's class.
        groups: (rows,) number of each row's group.
        folds: (rows,) fold of each row; groups are whole.
    """
    from scipy.special import betaincinv

    rows, classes = len(labels), int(labels.max()) + 1
    place = np.unique(folds, return_inverse=True)[1]
    inside, counts = _counts(place, labels), np.bincount(labels, minlength=classes)
    shares = counts - inside + 1.0
    shares /= shares.sum(axis=1, keepdims=True)
    pairs = np.unique(codes.astype(np.int64) * classes + labels, return_inverse=True)[1]
    alike = _outside(place, pairs)  # rows of other folds with the row's value and class, and with its value
    expected = shares[place, labels]
    uncertainty = -np.log(expected)
    gain = np.log((alike + expected) / (_outside(place, codes) + 1)) + uncertainty
    by_group = np.bincount(groups, weights=gain)[np.unique(groups)]
    # a column equal to the label gains equally in every row: no spread and no doubt
    errors = by_group.mean() / max(by_group.std() / np.sqrt(len(by_group)), 1e-9)

    base = counts / rows
    independent = np.bincount(np.unique(np.stack([codes, groups]), axis=1)[0], minlength=len(names))
    settling: dict[str, int] = {}  # value -> its rows
    if len(able := np.flatnonzero(independent >= _FEWEST)):
        members = np.isin(codes, able)
        there = _counts(np.searchsorted(able, codes[members]), labels[members], classes)
        count = there.sum(axis=1)
        there = there / count[:, None]
        rarest_first = np.argsort(there / base, axis=1)
        known = np.cumsum(np.take_along_axis(there, rarest_first, axis=1), axis=1)[:, :-1]
        share, groups_there = np.cumsum(base[rarest_first], axis=1)[:, :-1], independent[able, None]
        seen = known * groups_there
        highest = betaincinv(seen + 1, np.maximum(groups_there - seen, 1e-9), _CONFIDENCE)
        settles = ((share >= _RULED_OUT) & (highest <= share / _RARER)).any(axis=1)
        settling = {names[code]: int(n) for code, n in zip(able[settles], count[settles], strict=True)}
    removed = float(gain.sum() / uncertainty.sum())
    return Evidence(removed, float(errors), sum(settling.values()) / rows, [*settling])


def _counts(of: np.ndarray, labels: np.ndarray, classes: int = 0) -> np.ndarray:
    """(values, classes) number of rows."""
    classes = classes or int(labels.max()) + 1
    return np.bincount(of.astype(np.int64) * classes + labels, minlength=(of.max() + 1) * classes).reshape(-1, classes)


def _outside(folds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(rows,) number of rows of other folds with the row's value."""
    own = np.unique(np.int64(folds.max() + 1) * values + folds, return_inverse=True)[1]
    return np.bincount(values)[values] - np.bincount(own)[own]


def judge_columns(data: AuditedData) -> dict[str, Evidence]:
    """Column -> evidence about the label; also for parts of the ids, and size and mode of the images."""
    return judge_cells(data, _features(data))


def judge_cells(data: AuditedData, cells: Mapping[str, Sequence[str | None]]) -> dict[str, Evidence]:
    """Name -> evidence of its cells, one per row, about the label; constant ones are omitted."""
    labels = np.unique(data.labels.astype(str), return_inverse=True)[1]
    # groups may have gaps after rows were dropped
    groups = np.unique(data.groups, return_inverse=True)[1]
    if labels.max(initial=0) == 0 or groups.max(initial=0) + 1 < _FOLDS:
        return {}
    folds = group_folds(labels.tolist(), groups.tolist(), folds=_FOLDS)
    features = {name: encode(column) for name, column in cells.items()}
    told = {name: values for name, values in features.items() if len(values[1]) > 1}
    return {name: judge(*values, labels, groups, folds) for name, values in told.items()}


def _features(data: AuditedData) -> dict[str, list[str | None]]:
    """All candidates for leaks: columns of the table, parts of the ids, properties of the files."""
    dataset, frame = data.dataset, data.frame
    structure = dataset.roles
    features: dict[str, list[str | None]] = {}
    for name in data.cases.metadata:
        cells = frame[name].tolist()
        if name not in structure and not identifies(cells):
            features[name] = cells
        elif name not in structure or name == dataset.group_column:
            features |= _id_parts(name, cells)
    features |= _id_parts("id", frame["id"].tolist())
    images = [cell if isinstance(cell, str) else next(filter(None, cell or ()), "") for cell in frame["image"]]
    facts = [data.facts.get(image) for image in images]
    features["image size"] = [f"{fact.size[0]} x {fact.size[1]}" if fact else None for fact in facts]
    features["image mode"] = [fact.mode if fact else None for fact in facts]
    return features


def identifies(cells: Sequence[str | None]) -> bool:
    """Whether a column identifies rows or groups: mostly distinct texts."""
    present = [cell for cell in cells if cell is not None]
    return len(set(present)) > max(20, min(_MOST_VALUES, len(cells) / 10)) and _numbers(present) is None


def _id_parts(name: str, cells: Sequence[str | None]) -> dict[str, list[str | None]]:
    """Parts of an id that may leak: its spelling without digits, and its number, which may follow collection order."""
    stems = [PurePosixPath(cell).stem if cell is not None else None for cell in cells]
    return {
        f"{name} (spelling)": [re.sub(r"\d+", "#", stem) if stem is not None else None for stem in stems],
        f"{name} (number)": [next(reversed(re.findall(r"\d+", stem or "")), None) for stem in stems],
    }


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """A column as numbers, or None if a cell is not a number."""
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def encode(cells: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
    """Encode a column as categories: numbers with many values in bins of equal size, everything else unchanged.

    Returns:
        (rows,) category of each row, and the categories' names; missing cells form a category.
    """
    values = [cell for cell in cells if cell is not None]
    numbers = _numbers(values)
    if numbers is not None and len(set(values)) > _BINS:
        bins = max(2, min(_BINS, len(values) // 20))
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, bins + 1)[1:-1]))
        bounds = [numbers.min(), *edges, numbers.max()]
        places = np.full(len(cells), len(edges) + 1)  # for missing cells
        places[[cell is not None for cell in cells]] = np.searchsorted(edges, numbers, side="right")
        texts = np.array([*(f"{low:g} to {high:g}" for low, high in pairwise(bounds)), _MISSING])
        used, places = np.unique(places, return_inverse=True)
        names, codes = np.unique(texts[used], return_inverse=True)
        return codes[places], names.tolist()
    filled = np.array([cell if cell is not None else _MISSING for cell in cells], dtype=object)
    names, codes = np.unique(filled.astype(str), return_inverse=True)
    return codes, names.tolist()


def check_columns(data: AuditedData, evidence: Mapping[str, Evidence]) -> Iterator[Finding]:
    """Columns that reveal the label."""
    known_by_name = LeakGuard().leaking(evidence)
    plausible = []
    for name, found in evidence.items():
        if found.is_leak or (name in known_by_name and found.is_sure):
            yield _leak(name, found, is_input=name in data.inputs)
        elif found.is_sure:
            plausible.append(name)
    if plausible:
        named = ", ".join(f"{name} {evidence[name].removed:.1%}" for name in plausible)
        told = "columns predict the label to some extent, as ordinary patient data may"
        message = f"{told}; they remove {named} of its uncertainty"
        fix = "None needed if they are known before the diagnosis: they are why the text helps."
        details = {name: {"removed": evidence[name].removed} for name in plausible}
        yield Finding("predictive_column", "note", message, fix, details=details)


def leak_words(found: Evidence) -> str:
    """Description of a leak, after the column's name: ``reveals the label by itself: it removes ...``."""
    told = f"removes {max(found.removed, 0):.0%} of the label's uncertainty"
    if found.values:
        told += f" and determines it for {found.settled:.0%} of the rows ({_first_five(found.values)})"
    return f"reveals the label by itself: it {told}"


def _leak(name: str, found: Evidence, *, is_input: bool) -> Finding:
    severity, where = ("error", "is in the text and") if is_input else ("warning", "is not an input, and")
    keep_out = "Do not use it in the text, unless it is known before the diagnosis."
    fix = "Remove it from dataset.text_template." if is_input else keep_out
    message = f"{name!r} {where} {leak_words(found)}"
    details = {"column": name, "removed": found.removed, "settled": found.settled, "values": found.values}
    return Finding("label_leak", severity, message, fix, details=details)


def _first_five(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (", ..." if len(values) > 5 else "")


def check_words(data: AuditedData, synonyms: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Label words in the free text and in the sentences of the template."""
    from scipy.stats import binomtest

    labels = sorted(set(data.labels))
    guards = {label: LeakGuard([label], {label: synonyms.get(label, ())}) for label in labels}
    parts = {"free text": data.frame["text"].tolist(), "template": data.sentences}
    fixes = {
        "free text": "Remove the words (mmfusion narrate does), or use another text.",
        "template": "Remove the column with them from dataset.text_template.",
    }
    ids = data.frame["id"].tolist()
    numbers = [label for label, guard in guards.items() if not guard.terms]
    if numbers and any(text is not None for texts in parts.values() for text in texts):
        message = f"the labels {', '.join(numbers)} are numbers, which are not searched in texts"
        fix = "List the words that reveal them with --synonyms FILE.json."
        yield Finding("unguarded_label", "note", message, fix)
    for part, texts in parts.items():
        words: dict[str, None] = {}
        named_in: dict[str, list[int]] = {}  # label -> indices of the rows whose text names it
        found = lru_cache(maxsize=None)(lambda label, text: guards[label].find(text))
        for position, text in enumerate(texts):
            for label in labels if text is not None else ():
                if there := found(label, text):
                    named_in.setdefault(label, []).append(position)
                    words |= dict.fromkeys(word.lower() for word in there)
        if not words:
            continue
        own = {label: int((data.labels[where] == label).sum()) for label, where in named_in.items()}
        shares = {label: float((data.labels == label).mean()) for label in own}
        tests = {label: binomtest(own[label], len(named_in[label]), shares[label], "greater") for label in own}
        telling = [label for label, test in tests.items() if test.pvalue < _P_VALUE]
        rows = sorted({position for where in named_in.values() for position in where})
        share = sum(own.values()) / sum(map(len, named_in.values()))
        named = f"the {part} of {len(rows):,} rows names a label ({_first_five([*words])})"
        fix = fixes[part]
        message, severity = f"{named}; {share:.0%} of the time the row's own", "error" if telling else "warning"
        details = {"words": list(words), "telling": telling}
        yield Finding("label_words", severity, message, fix, [ids[position] for position in rows], details)
