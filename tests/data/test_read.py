"""Tables of cases: every format, and every problem of a row."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.data.tables import read_table

HEADER = "image,label,age,sex,patient,split,text\n"


def _data_root() -> Path:
    return Path(os.environ.get("MMFUSION_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _write_images(folder: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((160, 120)).rotate(i).convert("RGB").save(path)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV in a folder with the images a.jpg to f.jpg."""

    def write(*rows: str, header: str = HEADER) -> Path:
        _write_images(tmp_path, [f"{name}.jpg" for name in "abcdef"])
        (tmp_path / "cases.csv").write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
        return tmp_path

    return write


GOOD = (
    "a.jpg,nv,45.0,male,p1,train,",
    "b.jpg,mel,50,female,p2,train,Itches.",
    "c.jpg,nv,,unknown,p3,val,",
    "d.jpg,mel,60.5,male,p4,test,",
)


def _bad(cases: CaseTable) -> list[tuple[int, str, str]]:
    return [(problem.row, problem.column, problem.message) for problem in cases.problems]


def test_normal_form(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    cases = read_cases(root, DatasetConfig(group_column="patient"))
    assert cases.problems == []
    assert list(cases.frame.columns) == ["id", "image", "label", "text", "group", "split", "age", "sex", "patient"]
    assert cases.frame.index.tolist() == [1, 2, 3, 4]
    assert cases.frame.loc[1].tolist() == ["a.jpg", "a.jpg", "nv", None, "p1", "train", "45", "male", "p1"]
    assert cases.frame.loc[3, ["age", "sex"]].tolist() == [None, None]
    assert cases.frame.loc[4, "age"] == "60.5"
    assert cases.frame.loc[2, "text"] == "Itches."
    assert cases.labels == ["mel", "nv"]
    assert cases.splits == {"train": 2, "val": 1, "test": 1}
    assert cases.metadata == ["age", "sex", "patient"]
    assert cases.image_root == root
    assert check_images(cases, progress=False).resolve("fail") is cases


def test_label_map_joins_classes_and_refuses_what_it_does_not_name(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "e.jpg,bkl,1,male,p5,train,", "f.jpg,,1,male,p6,train,")
    joined = read_cases(root, DatasetConfig(label_map={"nv": "benign", "bkl": "benign", "mel": "malignant"}))
    assert joined.frame["label"].tolist() == ["benign", "malignant", "benign", "malignant", "benign", None]
    assert joined.labels == ["benign", "malignant"]
    assert _bad(joined) == [(6, "label", "missing label")]
    partial = DatasetConfig(label_map={"nv": "benign", "mel": "malignant"})
    message = "unknown label; dataset.label_map names nv, mel"
    assert _bad(read_cases(root, partial)) == [(5, "label", message), (6, "label", "missing label")]
    assert read_cases(root, partial).resolve("skip").labels == ["benign", "malignant"]
    assert _bad(read_cases(root, partial, require_labels=False)) == []


def test_the_root_may_be_the_table(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    pd.testing.assert_frame_equal(read_cases(root / "cases.csv").frame, read_cases(root).frame)


def test_parquet_and_json_lines_read_as_the_csv_does(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    expected = read_cases(root / "cases.csv")
    frame = pd.read_csv(root / "cases.csv")  # ages as floats, missing cells as NaN
    frame.to_parquet(root / "cases.parquet")
    frame.to_json(root / "cases.jsonl", orient="records", lines=True)
    frame.to_csv(root / "cases.tsv", sep="\t", index=False)
    for suffix in ("parquet", "jsonl", "tsv"):
        read = read_cases(root / f"cases.{suffix}")
        pd.testing.assert_frame_equal(read.frame, expected.frame)
        assert read.fingerprint() == expected.fingerprint()


def test_image_ids_without_extension_and_the_images_folder(tmp_path: Path) -> None:
    _write_images(tmp_path / "images", ["1.jpg", "2.png", "3.TIF", "4.v2.webp", "sub/5.bmp", "6.jpeg"])
    (tmp_path / "t.csv").write_text(
        "image_id,label\n" + "".join(f"{i},x\n" for i in ("1", "2", "3", "4.v2", "sub/5", "6"))
    )
    cases = read_cases(tmp_path)
    assert cases.problems == []
    assert cases.image_root == tmp_path / "images"
    assert cases.frame["image"].tolist() == ["1.jpg", "2.png", "3.TIF", "4.v2.webp", "sub/5.bmp", "6.jpeg"]
    assert cases.frame["id"].tolist() == ["1", "2", "3", "4.v2", "sub/5", "6"]


def test_report_format(tmp_path: Path) -> None:
    _write_images(tmp_path / "images", ["x1.jpg", "x2.jpg", "x3.jpg"])
    (tmp_path / "image.csv").write_text("image_id,label\nx1,nv\nx2,mel\nx3,nv\n")
    (tmp_path / "response.json").write_text(json.dumps({"x1": "A flat spot.", "x2.jpg": " Grows ", "zz": "no row"}))
    cases = read_cases(tmp_path)
    assert cases.problems == []
    assert cases.frame["text"].tolist() == ["A flat spot.", "Grows", None]
    assert cases.frame["image"].tolist() == ["x1.jpg", "x2.jpg", "x3.jpg"]

    (tmp_path / "response.json").write_text(json.dumps({"x1": ["A", "list"], "x2": "Grows"}))
    assert _bad(read_cases(tmp_path)) == [(1, "line", "response.json holds a list where a text is expected")]
    for broken, message in (('{"x1": "A', "cannot be read"), ("[1]", "must map image ids to texts")):
        (tmp_path / "response.json").write_text(broken)
        with pytest.raises(ValueError, match=message):
            read_cases(tmp_path)


def test_imagefolder_with_metadata(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        _write_images(tmp_path / split, ["1.png", "2.png"])
        lines = [{"file_name": f"{i}.png", "label": "ab"[i - 1], "text": f"{split} {i}"} for i in (1, 2)]
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cases = read_cases(tmp_path)
    assert cases.problems == []
    assert cases.frame["image"].tolist() == ["train/1.png", "train/2.png", "validation/1.png", "validation/2.png"]
    assert cases.frame["split"].tolist() == ["train", "train", "val", "val"]
    assert cases.frame["text"].tolist() == ["train 1", "train 2", "validation 1", "validation 2"]
    assert cases.labels == ["a", "b"]


def test_imagefolder_with_class_folders(tmp_path: Path) -> None:
    names = ["train/cat/1.jpg", "train/cat/10.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "test/dog/9.jpg"]
    _write_images(tmp_path, names)
    cases = read_cases(tmp_path)
    assert cases.problems == []
    assert cases.frame["image"].tolist() == [
        "test/dog/9.jpg",
        "train/cat/1.jpg",
        "train/cat/2.jpg",
        "train/cat/10.jpg",
        "train/dog/1.jpg",
    ]
    assert cases.frame["label"].tolist() == ["dog", "cat", "cat", "cat", "dog"]
    assert cases.splits == {"train": 4, "test": 1}

    (tmp_path / "metadata.csv").write_text("file_name,age\n" + "".join(f"{name},40\n" for name in names))
    with_table = read_cases(tmp_path)
    assert with_table.frame["label"].tolist() == ["cat", "cat", "cat", "dog", "dog"]
    assert with_table.metadata == ["age"]


def test_folder_for_prediction(tmp_path: Path) -> None:
    _write_images(tmp_path, ["b.jpg", "a2.jpg", "a10.jpg"])
    (tmp_path / "notes.txt").write_text("not an image")
    cases = read_cases(tmp_path, require_labels=False)
    assert cases.frame["id"].tolist() == ["a2.jpg", "a10.jpg", "b.jpg"]
    assert cases.problems == [] and cases.labels == []
    one = read_cases(tmp_path / "b.jpg", require_labels=False)
    assert one.frame["image"].tolist() == ["b.jpg"]
    with pytest.raises(ValueError, match="has no labels"):
        read_cases(tmp_path)


def test_prediction_needs_no_labels(table: Callable[..., Path]) -> None:
    root = table("a.jpg,40", "b.jpg,50", header="image,age\n")
    config = DatasetConfig(group_column="lesion", split_column="fold")
    cases = read_cases(root, config, processor_labels=["mel", "nv"], require_labels=False)
    assert cases.problems == [] and cases.frame["label"].tolist() == [None, None]
    table("a.jpg,nv", "b.jpg,something", header="image,label\n")
    cases = read_cases(root, processor_labels=["mel", "nv"], require_labels=False)
    assert cases.problems == [] and cases.frame["label"].tolist() == ["nv", None]


def test_all_missing_columns_are_named_at_once(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    config = DatasetConfig(
        image_column="picture", label_column="dx", id_column="key", group_column="lesion", text_template="{site}, {age}"
    )
    with pytest.raises(ValueError) as error:
        read_cases(root, config)
    assert "\n" not in str(error.value)
    assert str(error.value) == (
        "cases.csv has no column 'picture' (dataset.image_column), 'dx' (dataset.label_column), "
        "'key' (dataset.id_column), 'lesion' (dataset.group_column), 'site' (dataset.text_template); "
        "it has image, label, age, sex, patient, split, text. "
        "Name the right column with the option shown, or add the column."
    )


def test_a_template_does_not_tell_the_label(table: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="names 'label'; it may name only metadata"):
        read_cases(table(*GOOD), DatasetConfig(text_template="{age}, {label}"))


def test_image_file_missing(table: Callable[..., Path]) -> None:
    cases = read_cases(table(*GOOD, "gone.jpg,nv,1,male,p5,train,"))
    assert _bad(cases) == [(5, "image", f"the image file does not exist in {cases.image_root}")]


def test_images_that_cannot_be_decoded(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "e.jpg,nv,1,male,p5,train,", "f.jpg,nv,1,male,p6,train,")
    data = (root / "a.jpg").read_bytes()
    (root / "b.jpg").write_bytes(data[: len(data) // 2])
    (root / "d.jpg").write_bytes(b"")
    (root / "f.jpg").write_text("not an image")
    cases = check_images(read_cases(root), workers=2, progress=False)
    assert [problem.row for problem in cases.problems] == [2, 4, 6]
    assert all(problem.message.startswith("the image cannot be decoded: ") for problem in cases.problems)
    assert "truncated" in cases.problems[0].message
    assert cases.resolve("skip").frame["id"].tolist() == ["a.jpg", "c.jpg", "e.jpg"]


def test_paths_outside_the_image_root(tmp_path: Path) -> None:
    root = tmp_path / "data"
    _write_images(tmp_path, ["secret.jpg", "elsewhere/s.jpg", "data/a.jpg"])
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "inner.jpg").symlink_to(root / "a.jpg")
    (root / "sub").symlink_to(tmp_path / "elsewhere")
    paths = [
        "a.jpg",
        "../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "link.jpg",
        "sub/s.jpg",
        "x/../a.jpg",
        "inner.jpg",
        "C:\\a.jpg",
    ]
    (root / "t.csv").write_text("image,label\n" + "".join(f"{path},x\n" for path in paths))
    cases = read_cases(root)
    below = f"the path must be inside the image root {root} (dataset.image_root), without '..'"
    follow = "set dataset.follow_links true to follow it"
    assert _bad(cases) == [
        (2, "image", below),
        (3, "image", below),
        (4, "image", f"the file is a link out of the image root {root}; {follow}"),
        (5, "image", f"the folder 'sub' is a link out of the image root {root}; {follow}"),
        (6, "image", below),
        (8, "image", below),
    ]
    assert cases.resolve("skip").frame["image"].tolist() == ["a.jpg", "inner.jpg"]


def test_an_image_root_that_is_a_link_must_be_named(tmp_path: Path) -> None:
    _write_images(tmp_path / "disk", ["a.jpg"])
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk")
    (root / "t.csv").write_text("image,label\na.jpg,x\n")
    with pytest.raises(ValueError, match=r"set dataset\.image_root: images"):
        read_cases(root)
    assert read_cases(root, DatasetConfig(image_root="images")).problems == []
    with pytest.raises(FileNotFoundError, match=r"dataset\.image_root"):
        read_cases(root, DatasetConfig(image_root="pictures"))


def test_a_row_without_image_is_good_if_it_has_text(table: Callable[..., Path]) -> None:
    root = table(*GOOD, ",nv,,,p5,train,Only text.", ",nv,,,p6,train,", ",nv,33,,p7,train,", "nan,nv,,,p8,train,NaN")
    cases = read_cases(root)
    nothing = "neither image nor text"
    assert _bad(cases) == [(6, "text", nothing), (7, "text", nothing), (8, "text", nothing)]
    assert cases.problems[0].id == "row-6"
    assert cases.frame.loc[5, ["id", "image", "text"]].tolist() == ["row-5", None, "Only text."]
    # with a template, metadata are text
    assert [p.row for p in read_cases(root, DatasetConfig(text_template="{age}-year-old {sex}")).problems] == [6, 8]


def test_labels_missing_and_unknown(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "e.jpg,,1,male,p5,train,", "f.jpg,NaN,1,male,p6,train,")
    assert _bad(read_cases(root)) == [(5, "label", "missing label"), (6, "label", "missing label")]
    table(*GOOD, "e.jpg,bcc,1,male,p5,train,")
    assert read_cases(root).labels == ["bcc", "mel", "nv"]
    cases = read_cases(root, processor_labels=["nv", "mel"])
    assert _bad(cases) == [(5, "label", "unknown label; the model knows nv, mel")]
    assert cases.labels == ["nv", "mel"]


def test_a_class_without_training_rows(table: Callable[..., Path]) -> None:
    cases = read_cases(table(*GOOD, "e.jpg,bcc,1,male,p5,val,", "f.jpg,bcc,1,male,p6,test,"))
    message = "unknown label: in no training row, only in"
    assert _bad(cases) == [
        (5, "label", f"{message} val"),
        (6, "label", f"{message} test"),
    ]
    assert cases.labels == ["mel", "nv"]


def test_a_class_that_loses_its_last_training_row(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "e.jpg,bcc,1,male,p5,train,", "f.jpg,bcc,1,male,p6,test,")
    (root / "e.jpg").write_text("damaged")
    cases = check_images(read_cases(root), progress=False).resolve("skip")
    assert cases.frame["id"].tolist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_duplicate_and_missing_ids(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "a.jpg,nv,1,male,p5,train,", "a.jpg,nv,1,male,p6,train,")
    assert _bad(read_cases(root)) == [
        (5, "image", "duplicate id, first in row 1"),
        (6, "image", "duplicate id, first in row 1"),
    ]
    table(*GOOD, "a.jpg,nv,1,male,,train,")
    cases = read_cases(root, DatasetConfig(id_column="patient"))
    assert _bad(cases) == [(5, "patient", "missing id")]
    assert cases.problems[0].id == "row-5"


def test_splits_unknown_missing_and_by_other_names(table: Callable[..., Path]) -> None:
    root = table(*GOOD, "e.jpg,nv,1,male,p5,Validation,", "f.jpg,nv,1,male,p6,holdout,")
    cases = read_cases(root)
    assert _bad(cases) == [(6, "split", "unknown split; expected train, val or test")]
    assert cases.splits == {"train": 2, "val": 2, "test": 1}
    table(*GOOD, "e.jpg,nv,1,male,p5,,")
    assert _bad(read_cases(root)) == [(5, "split", "missing split; expected train, val or test")]


def test_a_group_on_both_sides_is_a_warning(table: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    root = table(*GOOD, "e.jpg,nv,1,male,p1,test,", "f.jpg,nv,1,male,p1,test,")
    cases = read_cases(root, DatasetConfig(group_column="patient"))
    assert _bad(cases) == [(5, "patient", "the group is in train and in test: a leak between splits")]
    assert cases.problems[0].warning and cases.problems[0].value == "p1"
    with caplog.at_level(logging.WARNING):
        assert len(cases.resolve("fail")) == 6
    assert "row 5 (e.jpg), patient 'p1': the group is in train and in test" in caplog.text


def test_broken_lines_lose_no_other_row(table: Callable[..., Path]) -> None:
    root = table(GOOD[0], "b.jpg,mel,50,female,p2,train,Itches, and bleeds.", GOOD[2], "d.jpg,mel,6")
    cases = read_cases(root)
    assert _bad(cases) == [
        (2, "line", "the line has 8 cells, but the header 7"),
        (4, "line", "the line has 3 cells, but the header 7"),
    ]
    assert cases.resolve("skip").frame["id"].tolist() == ["a.jpg", "c.jpg"]

    (root / "t.jsonl").write_text('{"image": "a.jpg", "label": "nv"}\n{"image": "b.jpg", "la\n[1]\n')
    cases = read_cases(root / "t.jsonl")
    assert [(row, column) for row, column, _ in _bad(cases)] == [(2, "line"), (3, "line")]
    assert "not JSON" in cases.problems[0].message and "a JSON list" in cases.problems[1].message


def test_fail_lists_everything_in_one_message(table: Callable[..., Path]) -> None:
    root = table(*GOOD, *(f"gone{i}.jpg,nv,1,male,p,train," for i in range(30)))
    with pytest.raises(ValueError) as error:
        read_cases(root).resolve("fail")
    lines = str(error.value).splitlines()
    assert lines[0] == ("cases.csv: 30 problems in 30 of 34 rows; fix them, or drop those rows with --on-bad-row skip:")
    assert lines[1] == f"  row 5 (gone0.jpg), image 'gone0.jpg': the image file does not exist in {root}"
    assert len(lines) == 22 and lines[-1] == "  ... and 10 more"


def test_skip_leaves_out_exactly_the_bad_rows(table: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    root = table(*GOOD, "gone.jpg,,1,male,p5,train,", "e.jpg,nv,1,male,p6,train,")
    cases = read_cases(root)
    assert len(cases.problems) == 2  # both of one row
    with caplog.at_level(logging.WARNING):
        kept = cases.resolve("skip")
    assert kept.frame.index.tolist() == [1, 2, 3, 4, 6]
    assert kept.problems == [] and len(cases) == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"cases.csv: dropped 1 of 6 rows:\n  {cases.problems[0]}\n  {cases.problems[1]}"
    ]
    assert "row 5 (gone.jpg)" in caplog.text and "does not exist" in caplog.text


def test_resolve_refuses(table: Callable[..., Path]) -> None:
    cases = read_cases(table("gone.jpg,nv,1,male,p5,train,"))
    with pytest.raises(ValueError, match="none of 1 rows is usable"):
        cases.resolve("skip")
    with pytest.raises(ValueError, match="'fail' or 'skip', got 'ignore'"):
        cases.resolve("ignore")


def test_select(table: Callable[..., Path]) -> None:
    cases = read_cases(table(*GOOD, "gone.jpg,nv,1,male,p5,train,"))
    train, val = cases.select("train"), cases.select("val")
    assert train.frame["id"].tolist() == ["a.jpg", "b.jpg", "gone.jpg"] and len(train.problems) == 1
    assert val.frame["id"].tolist() == ["c.jpg"] and val.problems == []
    assert val.labels == ["mel", "nv"]  # the classes are the table's, not the split's
    with pytest.raises(ValueError, match=re.escape("no rows of the split 'dev'; it has train (3), val (1), test (1)")):
        cases.select("dev")


def test_a_split_is_drawn_where_there_is_none(tmp_path: Path) -> None:
    _write_images(tmp_path, [f"{i}.jpg" for i in range(60)])
    rows = "".join(f"{i},{'ab'[i // 2 % 2]},g{i // 2}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("image,label,group\n" + rows)
    config = DatasetConfig(val_fraction=0.1, test_fraction=0.2)
    cases = read_cases(tmp_path, config)
    assert cases.splits == {} and cases.labels == ["a", "b"]
    drawn = cases.split_or_draw(config, seed=3)
    assert drawn.splits == {"train": 42, "val": 6, "test": 12}
    assert drawn.frame.groupby("group")["split"].nunique().max() == 1
    assert drawn.frame["split"].tolist() == cases.split_or_draw(config, seed=3).frame["split"].tolist()
    assert drawn.split_or_draw(config, seed=4) is drawn
    assert cases.splits == {}


def test_fingerprint(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    first = read_cases(root).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    table(*reversed(GOOD))
    assert read_cases(root).fingerprint() == first
    for changed in (
        GOOD[0].replace("nv", "mel"),
        GOOD[0].replace("train", "val"),
        GOOD[0] + "text",
        GOOD[0].replace("45", "46"),
    ):
        table(changed, *GOOD[1:])
        assert read_cases(root).fingerprint() != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"image,label\n", "has no rows"),
        (b"image,label,label\na.jpg,x,y\n", "column 'label' more than once"),
    ],
)
def test_damaged_tables(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_cases(tmp_path)


def test_an_open_quote(tmp_path: Path) -> None:
    """An open quote does not affect the 20,000 rows after it."""
    (tmp_path / "t.csv").write_text('image,label\n"a.jpg,x\n' + "b.jpg,y\n" * 20_000)
    cases = read_cases(tmp_path, DatasetConfig(id_column="image"))
    assert len(cases) == 20_001 and str(cases.problems[0]).endswith("line: a quote is not closed")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    pd.DataFrame({"image": ["a.jpg"], "label": ["x"]}).to_parquet(tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_cases(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends(table: Callable[..., Path]) -> None:
    root = table(*GOOD)
    expected = read_cases(root).fingerprint()
    text = (root / "cases.csv").read_text()
    (root / "cases.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_cases(root).fingerprint() == expected


def test_where_there_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_cases(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no table"):
        read_cases(tmp_path)
    (tmp_path / "a.csv").write_text("image,label\n")
    (tmp_path / "b.csv").write_text("image,label\n")
    with pytest.raises(ValueError, match=r"has 2 tables \(a.csv, b.csv\); select one with dataset.table"):
        read_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"c.csv does not exist; the folder has a.csv, b.csv."):
        read_cases(tmp_path, DatasetConfig(table="c.csv"))
    with pytest.raises(FileNotFoundError, match=r"image.csv, which does not exist"):
        read_cases(tmp_path, DatasetConfig(format="report"))
    with pytest.raises(ValueError, match=r"Unknown dataset\.format 'coco'"):
        read_cases(tmp_path, DatasetConfig(format="coco"))


def test_ham10000() -> None:
    root = _data_root() / "ham10000"
    if not root.is_dir():
        pytest.skip(f"real data: {root} does not exist; set MMFUSION_DATA")
    cases = read_cases(root, DatasetConfig(group_column="lesion_id"))
    assert cases.problems == []  # no lesion is in two splits
    assert cases.splits == {"train": 7011, "val": 1002, "test": 2002}
    assert cases.labels == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert cases.frame["age"].isna().sum() == 57 and cases.frame["sex"].isna().sum() == 57
    assert cases.frame["age"].dropna().str.fullmatch(r"\d+").all()


@pytest.mark.parametrize("field", ["label", "split", "dx", "image"])
def test_a_template_cannot_name_the_diagnosis_whatever_its_column_is_called(tmp_path, field):
    (tmp_path / "cases.csv").write_text("image,dx,label,split,age\na.png,mel,1,train,50\n")
    config = DatasetConfig(label_column="dx", text_template="{age} {" + field + "}")
    with pytest.raises(ValueError, match=f"text_template names '{field}'"):
        read_cases(tmp_path, config)


def test_parquet_of_several_row_groups_with_categories_keeps_all_rows(tmp_path: Path) -> None:
    """A dictionary-encoded column ends a batch of pyarrow with its row group."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = pd.Series([f"class {i % 3}" for i in range(300)], dtype="category")
    table = pyarrow.Table.from_pandas(pd.DataFrame({"image": [f"{i}.png" for i in range(300)], "label": labels}))
    parquet.write_table(table, tmp_path / "cases.parquet", row_group_size=100)
    assert read_table(tmp_path / "cases.parquet").columns["label"] == labels.tolist()


def test_an_unknown_format_is_refused_wherever_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"Unknown dataset\.format 'tabel'"):
        DatasetConfig(format="tabel")
