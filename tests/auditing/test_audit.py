"""The audit finds every planted problem, and nothing in clean data."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmfusion.auditing import AuditConfig, audit
from mmfusion.auditing.findings import Audit, Finding
from mmfusion.data import DatasetConfig

SIZE = (120, 96)
Rows = list[dict[str, str]]


def picture(seed: int) -> Image.Image:
    """Smooth noise, similar to a photograph."""
    coarse = np.random.default_rng((7, seed)).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture
def rows() -> Rows:
    """240 rows of 120 patients in two classes; the label is independent of everything else."""
    rng = np.random.default_rng(3)
    numbers, flips = rng.permutation(240), rng.permutation(120)
    return [
        {
            "image": f"{numbers[i]:03d}.png",
            "label": "amber" if flips[i // 2] % 2 else "basalt",
            "patient": f"P{i // 2:03d}",
            "split": {8: "test", 9: "val"}.get(flips[i // 2] // 2 % 10, "train"),
            "age": str(rng.integers(20, 80)),
            "site": str(rng.choice(["back", "arm", "leg"])),
            "device": str(rng.choice(["x", "y"])),
            "text": f"Seen {rng.integers(1, 9)} weeks ago.",
        }
        for i in range(240)
    ]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(240):
        picture(i).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def write(tmp_path: Path, pictures: Path) -> Callable[[Rows], Path]:
    """Write the rows and 240 images, which tests may change before the audit."""
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)

    def write_rows(rows: Rows) -> Path:
        with (tmp_path / "cases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path

    return write_rows


CONFIG = DatasetConfig(group_column="patient", text_template="{age}-year-old, {site}")
Write = Callable[[list[dict[str, str]]], Path]


def look(root: Path, config: DatasetConfig = CONFIG, **options: object) -> Audit:
    return audit(AuditConfig(str(root), output=None, dataset=config, **options))  # type: ignore[arg-type]


def grave(outcome: Audit) -> list[str]:
    """Findings except notes."""
    return [finding.check for finding in outcome.findings if finding.severity != "note"]


def the(outcome: Audit, check: str) -> Finding:
    (finding,) = [finding for finding in outcome.findings if finding.check == check]
    return finding


def of_split(rows: Rows, split: str) -> list[int]:
    return [i for i, row in enumerate(rows) if row["split"] == split]


def test_clean_data(rows: Rows, write: Write) -> None:
    outcome = look(write(rows))
    assert outcome.findings == []
    assert (outcome.rows, outcome.used, outcome.split) == (240, 240, "table")
    assert outcome.classes["amber"] == {"train": 96, "val": 12, "test": 12}
    assert outcome.images == {"images": 240, "sizes": {"120 x 96": 240}, "modes": {"RGB": 240}}
    assert {name for name, told in outcome.columns.items() if told["input"]} == {"age", "site"}


def test_duplicate_id(rows: Rows, write: Write) -> None:
    rows.append({**rows[of_split(rows, "train")[0]], "split": "test"})
    finding = the(look(write(rows)), "duplicate_id")
    assert finding.severity == "error" and "0 of the ids have two labels, 1 are in two splits" in finding.message
    assert finding.rows == [f"{rows[-1]['image']} (row 241)"]


@pytest.mark.parametrize(
    ("first", "second", "check", "severity"),
    [
        ("train", "test", "same_file_across_splits", "error"),
        ("train", "train", "same_file_in_a_split", "warning"),
    ],
)
def test_same_bytes(rows: Rows, write: Write, first: str, second: str, check: str, severity: str) -> None:
    a = of_split(rows, first)[0]
    b = next(i for i in reversed(of_split(rows, second)) if rows[i]["label"] == rows[a]["label"])
    root = write(rows)
    shutil.copy(root / rows[a]["image"], root / rows[b]["image"])
    outcome = look(root)
    assert grave(outcome) == [check]
    assert the(outcome, check).severity == severity
    assert the(outcome, check).rows == [" = ".join(rows[i]["image"] for i in sorted((a, b)))]


def test_same_bytes_under_two_labels_and_in_one_group(rows: Rows, write: Write) -> None:
    train = of_split(rows, "train")
    b = next(i for i in train if rows[i]["label"] != rows[train[0]]["label"])
    root = write(rows)
    shutil.copy(root / rows[train[0]]["image"], root / rows[b]["image"])
    assert grave(look(root)) == ["same_file_across_labels"]
    shutil.copy(root / rows[train[0]]["image"], root / rows[train[1]]["image"])  # the same patient
    picture(5000).save(root / rows[b]["image"])
    outcome = look(root)
    assert grave(outcome) == []
    assert [finding.check for finding in outcome.findings] == ["same_file_in_a_group"]


@pytest.mark.parametrize("change", ["compressed", "half", "mirrored", "turned", "brighter", "grey"])
def test_near_duplicate(rows: Rows, write: Write, change: str) -> None:
    a = of_split(rows, "train")[0]
    b = next(i for i in of_split(rows, "test") if rows[i]["label"] == rows[a]["label"])
    root = write(rows)
    image = Image.open(root / rows[a]["image"])
    copies = {
        "half": lambda: image.resize((60, 48)),
        "mirrored": lambda: ImageOps.mirror(image),
        "turned": lambda: image.rotate(90, expand=True),
        "brighter": lambda: image.point(lambda value: value * 0.7 + 60),
        "grey": lambda: image.convert("L"),
        "compressed": lambda: image,
    }
    image_format, options = ("JPEG", {"quality": 60}) if change == "compressed" else ("PNG", {})
    copies[change]().save(root / rows[b]["image"], image_format, **options)
    outcome = look(root)
    assert [finding.check for finding in outcome.of("error")] == ["near_duplicate_across_splits"]
    assert the(outcome, "near_duplicate_across_splits").rows == [" = ".join(rows[i]["image"] for i in sorted((a, b)))]


def test_group_on_both_sides(rows: Rows, write: Write) -> None:
    a, b = of_split(rows, "train")[0], of_split(rows, "test")[0]
    rows[b]["patient"] = rows[a]["patient"]
    outcome = look(write(rows))
    assert grave(outcome) == ["group_overlap"]
    assert the(outcome, "group_overlap").details == {"groups": 1, "rows": 1}
    assert the(outcome, "group_overlap").rows == [rows[b]["image"]]


def test_a_column_that_looks_like_a_group(rows: Rows, write: Write) -> None:
    config = replace(CONFIG, group_column=None)
    assert grave(look(write(rows), config)) == []
    outcome = look(write(rows), config, split="drawn")
    assert grave(outcome) == ["possible_group"]
    assert "dataset.group_column: patient" in the(outcome, "possible_group").fix


def test_random_rows_part_groups_where_the_drawn_split_keeps_them(rows: Rows, write: Write) -> None:
    root = write(rows)
    drawn, random = look(root, split="drawn"), look(root, split="random")
    assert grave(drawn) == [] and drawn.split == "drawn"
    assert grave(random) == ["group_overlap"] and random.split == "random"
    assert the(random, "group_overlap").details["groups"] > 20
    assert (
        random.fingerprint == look(root, split="random").fingerprint != look(root, split="random", seed=1).fingerprint
    )


@pytest.mark.parametrize("is_input", [False, True])
def test_leaking_column(rows: Rows, write: Write, is_input: bool) -> None:
    for row in rows:
        row["finding"] = "dark" if row["label"] == "amber" else "light"
    template = "{age}-year-old, {finding}" if is_input else CONFIG.text_template
    outcome = look(write(rows), replace(CONFIG, text_template=template))
    assert grave(outcome) == ["label_leak"]
    finding = the(outcome, "label_leak")
    assert finding.severity == ("error" if is_input else "warning")
    assert finding.details["column"] == "finding" and finding.details["settled"] == 1


def test_column_of_which_one_value_leaks(rows: Rows, write: Write) -> None:
    """Like dx_type of HAM10000: weak overall, but certain for the value follow_up."""
    amber = [row for row in rows if row["label"] == "amber"]
    for i, row in enumerate(rows):
        row["confirmed"] = ["biopsy", "consensus"][i % 2]
    for row in amber[:70]:
        row["confirmed"] = "follow-up"
    finding = the(look(write(rows), replace(CONFIG, group_column=None)), "label_leak")
    assert finding.details["values"] == ["follow-up"] and finding.details["removed"] < 0.5
    assert finding.details["settled"] == pytest.approx(70 / 240)


def test_plausible_column(rows: Rows, write: Write) -> None:
    for i, row in enumerate(rows):
        row["site"] = ["back", "arm"][(row["label"] == "amber") ^ (i % 5 == 0)]  # right in 4 of 5
    outcome = look(write(rows))
    assert grave(outcome) == []
    assert list(the(outcome, "predictive_column").details) == ["site"]


def test_column_known_by_its_name(rows: Rows, write: Write) -> None:
    """The same column with a telling name."""
    for i, row in enumerate(rows):
        row["Histology"] = ["P3", "P4"][(row["label"] == "amber") ^ (i % 5 == 0)]
    assert the(look(write(rows)), "label_leak").details["column"] == "Histology"


@pytest.mark.parametrize("way", ["spelling", "number"])
def test_id_that_encodes_the_label(rows: Rows, write: Write, way: str) -> None:
    for i, row in enumerate(sorted(rows, key=lambda row: row["label"])):
        row["case"] = f"{row['label'][0]}{i}" if way == "spelling" else f"c{i}"
    outcome = look(write(rows), replace(CONFIG, id_column="case"))
    found = [finding.details["column"] for finding in outcome.of("warning")]
    assert f"id ({way})" in found and set(found) <= {"id (spelling)", "id (number)"}


def test_image_size_that_tells_the_label(rows: Rows, write: Write) -> None:
    root = write(rows)
    for row in rows:
        if row["label"] == "amber":
            Image.open(root / row["image"]).resize((130, 100)).save(root / row["image"])
    assert the(look(root), "label_leak").details["column"] == "image size"


@pytest.mark.parametrize("place", ["text", "site"])
def test_label_words(rows: Rows, write: Write, place: str) -> None:
    for row in rows[:60]:
        row[place] = f"Looks like {'AMBERS' if row['label'] == 'amber' else 'dark lava'}."
    root = write(rows)
    (root / "words.txt").write_text('{"basalt": ["lava"]}')
    outcome = look(root, synonyms=str(root / "words.txt"))
    finding = the(outcome, "label_words")
    assert finding.severity == "error" and len(finding.rows) == 60
    assert ("template" in finding.message) == (place == "site")
    assert set(finding.details["words"]) == {"ambers", "lava"} and "100% of the time" in finding.message


def test_label_words_that_follow_no_label(rows: Rows, write: Write) -> None:
    for row in rows:
        row["text"] = "Neither amber nor basalt can be excluded."
    assert the(look(write(rows)), "label_words").severity == "warning"


@pytest.mark.parametrize(("column", "modality"), [("image", "image"), ("text", "text")])
def test_modality_missing_by_class(rows: Rows, write: Write, column: str, modality: str) -> None:
    amber = [i for i, row in enumerate(rows) if row["label"] == "amber"]
    for i, row in enumerate(rows):
        row["case"] = f"c{i * 77 % 240}"
    for i in amber[:40]:
        rows[i][column] = ""
    config = replace(CONFIG, id_column="case", text_template=None)
    outcome = look(write(rows), config)
    finding = the(outcome, "missing_by_class")
    assert finding.severity == "error" and f"a {modality}" in finding.message.replace("an image", "a image")
    assert finding.details["missing"] == {"amber": pytest.approx(1 / 3), "basalt": 0}
    for i in range(240):  # as many, but equally of both classes
        rows[i][column] = "" if i % 6 == 0 else "Seen." if column == "text" else f"{i:03d}.png"
    assert "missing_by_class" not in grave(look(write(rows), config))


def test_bad_rows_are_told_and_left_out(rows: Rows, write: Write) -> None:
    root = write(rows)
    (root / rows[0]["image"]).write_bytes(b"no picture")
    (root / rows[1]["image"]).unlink()
    outcome = look(root)
    assert (outcome.rows, outcome.used) == (240, 238)
    assert the(outcome, "unreadable_image").rows == [f"{rows[0]['image']} (row 1)"]
    (missing,) = [finding for finding in outcome.findings if "does not exist" in finding.message]
    assert missing.severity == "error" and missing.rows == [f"{rows[1]['image']} (row 2)"]


def test_sizes_modes_and_blanks(rows: Rows, write: Write) -> None:
    root = write(rows)
    picture(0).resize((20, 16)).save(root / rows[0]["image"])
    picture(4001).resize((480, 384)).save(root / rows[1]["image"])
    picture(4002).convert("L").save(root / rows[2]["image"])
    grey = Image.new("RGB", SIZE, (9, 9, 9))
    grey.putpixel((0, 0), (9, 9, 10))  # a single gray value would make it a bad row
    grey.save(root / rows[3]["image"])
    outcome = look(root)
    assert the(outcome, "small_image").rows == [rows[0]["image"]]
    assert the(outcome, "odd_size").rows == [rows[1]["image"]]
    assert the(outcome, "mixed_modes").rows == [rows[2]["image"]]
    assert the(outcome, "blank_image").rows == [rows[3]["image"]]


def test_thin_classes(rows: Rows, write: Write) -> None:
    test = of_split(rows, "test")
    kept = [i for i in test if rows[i]["label"] == "amber"][:3]
    rows = [row for i, row in enumerate(rows) if i not in test or i in kept]
    outcome = look(write(rows))
    assert grave(outcome) == ["class_absent", "class_tail"]
    assert "test has no row of basalt" in the(outcome, "class_absent").message
    assert "amber (3)" in the(outcome, "class_tail").message


def test_one_class(rows: Rows, write: Write) -> None:
    outcome = look(write([{**row, "label": "amber"} for row in rows]))
    assert grave(outcome) == ["one_class"] and outcome.columns == {}


def test_views_and_slices_of_one_case_are_no_duplicates(rows: Rows, write: Write) -> None:
    root = write(rows)
    for a, b in zip(rows[::2], rows[1::2], strict=True):  # two rows per patient, nearly equal
        Image.open(root / a["image"]).save(root / b["image"], "JPEG", quality=70)
    config = DatasetConfig(study_column="patient")
    outcome = look(root, config)
    assert outcome.rows == 120 and "near_duplicate" not in " ".join(grave(outcome))
    assert look(root, replace(config, study_column=None, group_column="patient")).findings[0].check.startswith("near")


def test_report_files(rows: Rows, write: Write, tmp_path: Path) -> None:
    rows.append(rows[0])
    outcome = look(write(rows))
    outcome.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["findings"][0]["check"] == "duplicate_id" and content["fingerprint"] == outcome.fingerprint
    page = (tmp_path / "out" / "audit.md").read_text()
    assert "### duplicate_id" in page and "| amber | 96 | 12 | 12 |" in page
    assert outcome.summary().splitlines()[0].endswith("1 error, 0 warnings, 0 notes")


def test_every_finding_is_explained() -> None:
    """``docs/audit.md`` has a row for each check in the code."""
    from mmfusion.auditing import run

    page = (Path(run.__file__).parents[2] / "docs" / "audit.md").read_text()
    code = "".join(path.read_text() for path in Path(run.__file__).parent.glob("*.py"))
    checks = set(re.findall(r'Finding\(\s*"(\w+)"', code)) | {"duplicate_id", "unreadable_image", "bad_row"}
    checks |= {f"{kind}_{place}" for kind in ("same_file", "near_duplicate") for place in PLACES}
    assert len(checks) > 20
    assert [check for check in sorted(checks) if f"`{check}`" not in page] == []


PLACES = ("across_splits", "across_labels", "in_a_split", "in_a_group")


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="supports auto, drawn, random"):
        AuditConfig(str(tmp_path), split="rows")


@pytest.mark.slow
def test_ham10000() -> None:
    data = Path(os.environ.get("MMFUSION_DATA", Path(__file__).parents[4] / "shared" / "data")) / "ham10000"
    if not data.is_dir():
        pytest.skip(f"real data: {data} does not exist; set MMFUSION_DATA")
    config = DatasetConfig(
        table="metadata.csv",
        image_root="images",
        group_column="lesion_id",
        text_template="{age}-year-old {sex}, lesion on the {localization}",
    )
    shipped, random = look(data, config), look(data, config, split="random")
    assert "group_overlap" not in grave(shipped)
    overlap = the(random, "group_overlap")
    assert overlap.severity == "error" and overlap.details["rows"] > 500
    for outcome in (shipped, random):
        leak = the(outcome, "label_leak")
        assert leak.details["column"] == "dx_type" and "follow_up" in leak.details["values"]
        assert set(the(outcome, "predictive_column").details) == {"age", "localization"}
    # one image under two lesions, which the shipped split separates
    assert the(shipped, "near_duplicate_across_splits").rows == ["ISIC_0025226.jpg = ISIC_0030074.jpg"]
