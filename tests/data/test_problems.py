"""Problems have kinds, and no code depends on their messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmfusion.auditing import Audit, AuditConfig, audit
from mmfusion.data import CaseTable, DatasetConfig, Problem, ProblemKind, Processor, check_images, read_cases
from mmfusion.data.problems import Severity
from mmfusion.data.read import CASE_STEPS, CELL_STEPS, to_normal_form
from mmfusion.inference.rows import AllRows

K = ProblemKind


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, DatasetConfig]:
    """A table with nearly every kind of problem of single-image rows."""
    for name in "abcdefgh":
        Image.linear_gradient("L").resize((32, 32)).save(tmp_path / f"{name}.png")
    (tmp_path / "h.png").write_bytes(b"no picture")
    rows = [
        ("1", "a.png", "x", "p1", "train", "0,0,9,9"),
        ("2", "b.png", "y", "p2", "train", ",,,"),
        ("2", "c.png", "x", "p3", "train", ",,,"),  # an id twice
        ("", "d.png", "y", "p4", "train", ",,,"),  # no id
        ("5", "gone.png", "x", "p5", "train", ",,,"),
        ("6", "../a.png", "x", "p6", "train", ",,,"),
        ("7", "", "x", "p7", "train", ",,,"),
        ("8", "e.png", "", "p8", "train", ",,,"),
        ("9", "f.png", "z", "p9", "test", ",,,"),  # no training row of z
        ("10", "g.png", "x", "p1", "test", ",,,"),  # a group in two splits
        ("11", "a.png", "x", "p11", "", ",,,"),
        ("12", "a.png", "x", "p12", "later", ",,,"),
        ("13", "a.png", "x", "p13", "train", "1,2,x,4"),
        ("14", "a.png", "x", "p14", "train", "5,5,5,9"),
        ("15", "a.png", "x", "p15", "train", "0,0,99,9"),
        ("16", "h.png", "x", "p16", "train", ",,,"),
        ("17", "a.png", "x", "p17"),  # a line that is too short
    ]
    lines = ["case,image,label,group,split,x0,y0,x1,y1", *map(",".join, rows)]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, DatasetConfig(id_column="case", roi_columns=["x0", "y0", "x1", "y1"])


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, DatasetConfig]:
    """Studies with nearly every kind of problem."""
    for i in range(9):
        Image.new("RGB", (8, 8), (9 * i, 9, 200)).save(tmp_path / f"{i}.png")
    (tmp_path / "8.png").write_bytes(b"no picture")
    rows = [
        ("0.png", "A", "1", "x", "g1", "train"),
        ("1.png", "A", "1", "y", "g2", "test"),  # the slice twice; label, group and split differ
        ("2.png", "B", "", "x", "g3", "train"),  # no slice number
        ("3.png", "B", "2", "x", "g3", "train"),
        ("4.png", "", "1", "x", "g4", "train"),  # no study
        ("5.png", "C", "1", "q", "g5", "train"),  # a label that the map does not have: a problem of the image
        ("6.png", "C", "2", "x", "g5", "later"),  # an unknown split is the study's
        ("7.png", "D", "1", "x", "g6"),
        ("8.png", "E", "1", "x", "g7", "train"),  # its only image cannot be decoded
        ("gone.png", "F", "1", "x", "g8", "train"),
    ]
    lines = ["image,study,slice,label,group,split", *map(",".join, rows)]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, DatasetConfig(study_column="study", slice_column="slice", label_map={"x": "x", "y": "y"})


def _read(root: Path, config: DatasetConfig) -> CaseTable:
    return check_images(read_cases(root, config), progress=False)


def test_kinds_of_rows(plain: tuple[Path, DatasetConfig]) -> None:
    assert [(problem.row, problem.kind) for problem in _read(*plain).problems] == [
        (3, K.DUPLICATE_ID),
        (4, K.MISSING_ID),
        (5, K.MISSING_IMAGE),
        (6, K.OUTSIDE_ROOT),
        (7, K.NO_CONTENT),
        (8, K.MISSING_LABEL),
        (9, K.UNTRAINED_LABEL),
        (10, K.GROUP_IN_TWO_SPLITS),
        (11, K.MISSING_SPLIT),
        (12, K.UNKNOWN_SPLIT),
        (13, K.REGION_NOT_NUMERIC),
        (14, K.REGION_EMPTY),
        (15, K.REGION_OUTSIDE_IMAGE),
        (16, K.UNREADABLE_IMAGE),
        (17, K.BROKEN_LINE),
    ]
    root, config = plain
    known = read_cases(root, config, processor_labels=["x"])
    assert [problem.row for problem in known.problems if problem.kind is K.UNKNOWN_LABEL] == [2, 4, 9]


def test_kinds_of_studies(studies: tuple[Path, DatasetConfig]) -> None:
    found = {(problem.row, problem.kind, problem.part_of) for problem in _read(*studies).problems}
    assert found == {
        (1, K.STUDY_LABELS_DIFFER, None),
        (1, K.STUDY_GROUPS_DIFFER, None),
        (1, K.STUDY_SPLITS_DIFFER, None),
        (2, K.STUDY_PLACE_TAKEN, 1),
        (3, K.STUDY_PLACE_MISSING, 4),
        (5, K.STUDY_UNNAMED, None),
        (6, K.UNKNOWN_LABEL, 7),
        (7, K.UNKNOWN_SPLIT, None),
        (8, K.BROKEN_LINE, 8),
        (8, K.STUDY_WITHOUT_IMAGES, None),
        (9, K.UNREADABLE_IMAGE, 9),
        (9, K.STUDY_WITHOUT_IMAGES, None),
        (10, K.MISSING_IMAGE, 10),
        (10, K.STUDY_WITHOUT_IMAGES, None),
    }


def test_severity_is_a_property_of_the_kind() -> None:
    mild = {kind: kind.severity for kind in K if kind.severity is not Severity.ERROR}
    assert mild == {
        K.GROUP_IN_TWO_SPLITS: Severity.WARNING,
        K.MISSING_ID: Severity.READABLE,
        K.DUPLICATE_ID: Severity.READABLE,
    }
    assert len({kind.value for kind in K}) == len(K)


def _predictable(cases: CaseTable) -> list[bool]:
    rows = AllRows(cases, Processor(labels=["x", "y", "z"], image_size=8))
    readable = []
    for i in range(len(rows)):
        try:
            rows[i]
            readable.append(True)
        except ValueError:
            readable.append(False)
    return readable


def _outcome(audited: Audit) -> dict[str, Any]:
    """The result of an audit without its messages."""
    findings = [(finding.check, finding.severity, finding.rows) for finding in audited.findings]
    return {**{name: value for name, value in vars(audited).items() if name != "findings"}, "rows of": findings}


@pytest.mark.parametrize("data", ["plain", "studies"])
def test_a_reworded_message_changes_nothing(
    data: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config = request.getfixturevalue(data)

    def everything() -> tuple[Any, ...]:
        cases = _read(root, config)
        problems = [(p.kind, p.row, p.id, p.column, p.value, p.part_of) for p in cases.problems]
        audited = _outcome(audit(AuditConfig(str(root), output=None, dataset=config)))
        return problems, _predictable(cases), cases.resolve("skip").frame.to_dict(), audited

    before = everything()
    made: Callable[..., None] = Problem.__init__

    def reworded(self: Problem, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        object.__setattr__(self, "message", "line: duplicate id, unknown label; the image cannot be decoded: 7")

    monkeypatch.setattr(Problem, "__init__", reworded)
    assert {problem.message for problem in _read(root, config).problems} == {
        "line: duplicate id, unknown label; the image cannot be decoded: 7"
    }
    assert everything() == before
    assert any(before[1]) and not all(before[1])


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """``line`` names broken lines in reports, and may also be an image column."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "cases.csv").write_text("line,label\na.png,x\ngone.png,\n")
    cases = read_cases(tmp_path, DatasetConfig(image_column="line"))
    assert [(problem.row, problem.kind) for problem in cases.problems] == [(2, K.MISSING_IMAGE), (2, K.MISSING_LABEL)]


def test_the_steps_of_reading() -> None:
    steps = [*CELL_STEPS, to_normal_form, *CASE_STEPS]
    modules = [step.__module__.removeprefix("mmfusion.data.") for step in steps]
    assert len(set(modules)) == len(steps)
    assert [step.__name__ for step in steps] == [
        "read_files",
        "add_header_columns",
        "join_labels",
        "rename_columns",
        "split_by_fold",
        "read_label_columns",
        "find_columns",
        "without_odd_cells",
        "join_label_cells",
        "to_normal_form",
        "group_rows",
        "read_regions",
        "apply_split_table",
        "check_cases",
    ]
