"""Reading step: a split or folds from a file, with fingerprints of the rows they were drawn for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfusion.data.cases import CaseTable, object_array
from mmfusion.data.class_folders import SPLIT_NAMES
from mmfusion.data.config import DatasetConfig
from mmfusion.data.folds import with_fold_split
from mmfusion.data.formats import find_split_table
from mmfusion.data.reading import CaseReading
from mmfusion.data.tables import RawTable, read_table
from mmfusion.files import written_table


def write_split_table(cases: CaseTable, path: str | Path, column: str = "split") -> None:
    """Write one line per row: ``id``, the column, and ``fingerprint``, a hash of what the split depends on.

    Args:
        cases: The rows, all with a split.
        path: CSV file to write.
        column: ``split`` or ``fold``.
    """
    with written_table(Path(path)) as writer:
        writer.writerow(["id", column, "fingerprint"])
        rows = cases.frame[["id", column, "label", "group"]].itertuples(index=False, name=None)
        writer.writerows([id_, cell, _fingerprint(id_, label, group)] for id_, cell, label, group in rows)


def apply_split_table(reading: CaseReading) -> CaseReading:
    """Take the split of each case from ``dataset.split_table``. Cases not in it have no split.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: It is not a split table, no row is in it, or according to the fingerprints rows changed their label
            or group, or were removed, since it was drawn.
    """
    config, cases = reading.config, reading.cases
    if config.split_table is None or not reading.require_labels:
        return reading
    path = find_split_table(config.split_table, reading.folder)
    table = read_table(path)
    splits = _splits(table, path, config)
    if not splits.keys() & set(cases.frame["id"]):
        raise ValueError(f"No row of {cases.source} is in {path} (dataset.split_table); check that the ids match.")
    if "fingerprint" in table.columns:
        expected = dict(zip(splits, table.columns["fingerprint"], strict=True))
        _check_fingerprints(cases, path, expected, _former_names(config))
    frame = cases.frame.assign(split=object_array([splits.get(id_) for id_ in cases.frame["id"]]))
    return replace(reading, cases=replace(cases, frame=frame))


def _splits(table: RawTable, path: Path, config: DatasetConfig) -> dict[str, str]:
    """Id -> split, in the order of the table."""
    for row, why in table.broken.items():
        raise ValueError(f"{path} (dataset.split_table), row {row}: {why}.")
    table = with_fold_split(table, config, "split")
    for column in ("id", "split"):
        if column not in table.columns:
            hint = "; set dataset.fold_column and dataset.folds" if "fold" in table.columns else ""
            there = ", ".join(table.columns)
            raise ValueError(f"{path} (dataset.split_table) has no column {column!r}; it has {there}{hint}.")
    splits: dict[str, str] = {}
    for row, (id_, split) in enumerate(zip(table.columns["id"], table.columns["split"], strict=True), start=1):
        id_, split = str(id_).strip(), str(split).strip()
        if id_ in splits:
            raise ValueError(f"{path} (dataset.split_table) has the id {id_!r} twice, again in row {row}.")
        if split.lower() not in SPLIT_NAMES:
            unknown = f"unknown split {split!r}; expected train, val or test"
            raise ValueError(f"{path} (dataset.split_table), row {row}: {unknown}.")
        splits[id_] = SPLIT_NAMES[split.lower()]
    return splits


def _former_names(config: DatasetConfig) -> dict[str, list[str]]:
    """Class name -> original values in ``dataset.label_map``: the split may have been drawn without the map."""
    names: dict[str, list[str]] = {}
    for value, name in config.label_map.items():
        names.setdefault(name, []).append(str(value))
    return names


def _check_fingerprints(
    cases: CaseTable, path: Path, expected: Mapping[str, str], former: Mapping[str, list[str]]
) -> None:
    frame = cases.frame[["id", "label", "group"]]
    rows = [row for row in frame.to_dict("records") if row["id"] in expected]

    def is_as_drawn(row: Mapping[Any, Any]) -> bool:
        names = [row["label"], *former.get(row["label"], ())]
        return any(_fingerprint(row["id"], name, row["group"]) == expected[row["id"]] for name in names)

    changed = [row["id"] for row in rows if not is_as_drawn(row)]
    there = {row["id"] for row in rows}
    gone = [id_ for id_ in expected if id_ not in there]
    what = [
        f"{len(changed)} of {len(rows)} rows have another label or group (the first: {row!r})" for row in changed[:1]
    ]
    what += [f"{len(gone)} rows are missing (the first: {row!r})" for row in gone[:1]]
    if what:
        raise ValueError(
            f"{path} was drawn for other rows of {cases.source}: {' and '.join(what)}; restore the former settings "
            "(label_column, group_column), or draw a new split with mmfusion split."
        )


def _fingerprint(id_: str, label: Any, group: Any) -> str:
    """Hash of what a split depends on; text and metadata may change."""
    key = json.dumps([id_, label, group], ensure_ascii=False)
    return hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()[:12]
