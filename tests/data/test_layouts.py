"""Common layouts of data sets: public ones, spreadsheets, separators, links, folders of patients."""

import json
import logging
import os
import struct
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from mmfusion.data import DatasetConfig, check_images, image_checks, read_cases
from mmfusion.data.cases import CaseTable
from mmfusion.data.labels import in_order, label_faults
from mmfusion.data.presets import PRESETS
from mmfusion.data.read import stream_cases
from mmfusion.data.walking import walk


def picture(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (8, 8), (level, 20, 40))
    image.putpixel((7, 7), (250, 250, 250))  # one color alone is a blank image
    image.save(path)
    return path


def messages(cases: CaseTable) -> list[str]:
    return [problem.message for problem in cases.problems]


def test_kaggles_ham10000_as_it_is_downloaded(tmp_path: Path) -> None:
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for i in range(4):
        picture(tmp_path / f"HAM10000_images_part_{1 + i % 2}" / f"ISIC_{i}.jpg")
        picture(tmp_path / f"ham10000_images_part_{1 + i % 2}_copy" / f"ISIC_{i}.jpg")  # the download has copies
        rows.append(f"HAM_{i // 2},ISIC_{i},{'nv' if i // 2 else 'mel'},histo,50.0,male,back")
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "hmnist_8_8_L.csv").write_text("pixel0000,label\n1,0\n")
    with pytest.raises(ValueError, match=r"2 tables.*dataset\.preset ham10000_kaggle"):
        read_cases(tmp_path)
    cases = read_cases(tmp_path, DatasetConfig(preset="ham10000_kaggle"))
    assert messages(cases) == [] and cases.labels == ["mel", "nv"]
    assert cases.frame["group"].tolist() == ["HAM_0", "HAM_0", "HAM_1", "HAM_1"]
    assert cases.frame["image"].tolist()[:2] == [f"HAM10000_images_part_{n}/ISIC_{n - 1}.jpg" for n in (1, 2)]
    own = DatasetConfig(preset="ham10000_kaggle", group_column="dx_type")  # an option overrides the layout
    assert own.group_column == "dx_type" and own.label_column == "dx"
    with pytest.raises(ValueError, match="isic2018"):
        DatasetConfig(preset="isic")
    for part in stream_cases(tmp_path, DatasetConfig(preset="ham10000_kaggle"), processor_labels=["nv"], rows=2):
        assert messages(part) == []  # the copies are not read in later parts either


@pytest.mark.parametrize(
    "name", ["ham10000", "spider_modic_multiview", "spider_modic_sequence", "spider_pfirrmann_25d"]
)
def test_layouts_of_the_examples(name: str) -> None:
    example = Path(__file__).parents[2] / "examples" / f"{name}.yaml"
    options = yaml.safe_load(example.read_text())["dataset"]
    assert DatasetConfig(preset=name) == DatasetConfig(preset=name, **options | {"format": "auto"})
    assert PRESETS[name].items() <= options.items()
    assert not DatasetConfig(preset=name).without_split().folds  # a changed copy is not filled again


def test_one_hot_labels(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / "ISIC2018_Task3_Training_Input" / f"{name}.jpg")
    table = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    table.parent.mkdir()  # as the archive is unpacked
    head = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    table.write_text(f"{head}a,1.0,0,0,0,0,0,0\nb,0,1.0,0,0,0,0,0\nc,1,1,0,0,0,0,0\nd,0,0,0,0,0,0,0\n")
    cases = read_cases(tmp_path, DatasetConfig(preset="isic2018"))
    assert cases.frame["label"].tolist() == ["MEL", "NV", None, None]
    assert messages(cases) == [
        "2 label columns are 1 (MEL, NV), but exactly one must be",
        "no label column is 1, but exactly one must be",
    ]
    assert cases.metadata == []  # the answer is not an input
    assert cases.frame["group"].isna().all()
    lesions = tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv"
    lesions.write_text("image,lesion_id,diagnosis_confirm_type\nb,L1,x\na,L1,x\nc,L2,x\n")
    grouped = read_cases(tmp_path, DatasetConfig(preset="isic2018"))
    assert grouped.frame["group"].tolist() == ["L1", "L1", "L2", None] and grouped.metadata == []
    ungrouped = read_cases(tmp_path, DatasetConfig(preset="isic2018", group_column="none"))
    assert ungrouped.frame["group"].isna().all()
    own = DatasetConfig(label_columns=["MEL", "NV"])  # as saved with a model, for a table with a label column
    frame = pd.DataFrame({"text": ["a"], "label": ["NV"], "image": [None]})
    assert read_cases(frame, own, processor_labels=["MEL", "NV"]).frame["label"].tolist() == ["NV"]
    with pytest.raises(ValueError, match=r"no column 'MEL' \(dataset\.label_columns\)"):
        read_cases(frame, own)
    table.write_text(f"{head}a,1.0,0,0,0,0,0,0\nb,0,1.0,0,0,0,0,0\n")
    images = DatasetConfig(image_root="../ISIC2018_Task3_Training_Input")
    with pytest.raises(ValueError, match=r"dataset\.preset isic2018"):
        read_cases(table, images)
    with pytest.raises(ValueError, match=r"The columns MEL, NV, .* name them in dataset\.label_columns"):
        read_cases(table.rename(table.with_name("truth.csv")), images)


def test_a_label_column_that_is_one_of_several_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("text,MEL,NV,BCC\na,1,0,0\nb,0,1,0\nc,0,0,1\nd,0,1,0\n")
    config = DatasetConfig(label_column="MEL", categorical_columns=["text"])
    told = "'MEL' is one of 3 that look like one class each (MEL, NV, BCC): it only separates MEL from the others"
    assert read_cases(tmp_path, config).labels == ["0", "1"]
    assert told in caplog.text and "dataset.label_columns reads all of them" in caplog.text
    caplog.clear()
    read_cases(tmp_path, config, processor_labels=["0", "1"])  # a model trained that way
    (tmp_path / "t.csv").write_text("text,MEL,NV,BCC\na,1,0,0\nb,0,1,1\n")
    read_cases(tmp_path, config)
    assert not caplog.text


def test_a_table_in_two_folders_below_is_not_guessed(tmp_path: Path) -> None:
    for name in ("test", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("image,label\n,x\n")
    with pytest.raises(ValueError, match=r"has test/t\.csv and train/t\.csv; select one with dataset\.table"):
        read_cases(tmp_path, DatasetConfig(table="t.csv"))
    assert len(read_cases(tmp_path, DatasetConfig(table="train/t.csv"))) == 1


def test_images_in_sub_folders_and_in_several_roots(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png", "b/twice.png", "c/twice.jpg", ".trash/z.png"):
        picture(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,label\nx,1\ny.png,2\ntwice,1\nz.png,2\n")
    cases = read_cases(tmp_path)
    assert cases.frame["image"].tolist() == ["a/x.png", "b/y.png", "twice", "z.png"]
    assert "b/twice.png and c/twice.jpg" in messages(cases)[0] and "does not exist" in messages(cases)[1]
    cases = read_cases(tmp_path, DatasetConfig(image_root=["a", "b"]))
    assert cases.frame["image"].tolist()[:3] == ["a/x.png", "b/y.png", "b/twice.png"]
    (tmp_path / "t.csv").write_text(f"image,label\n{tmp_path.resolve() / 'b' / 'y.png'},1\n")
    assert read_cases(tmp_path).frame["image"].tolist() == ["b/y.png"]


def test_paths_with_folders_are_looked_for_by_their_ends(tmp_path: Path) -> None:
    for name in ("scans/p1/t2/1.png", "scans/p2/t2/1.png", "other/p2/t2/2.png"):
        picture(tmp_path / name)
    rows = ["p1/t2/1.png", "p2\\t2\\1.png", "t2/2", "t2/1.png", "2/1.png", "https://example.org/1.png"]
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{row},x\n" for row in rows))
    cases = read_cases(tmp_path)
    assert cases.frame["image"].tolist()[:3] == ["scans/p1/t2/1.png", "scans/p2/t2/1.png", "other/p2/t2/2.png"]
    several, part, address = messages(cases)
    assert "scans/p1/t2/1.png and scans/p2/t2/1.png" in several and "does not exist" in part
    assert "not downloaded from URLs" in address


def test_links_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        picture(tmp_path / "store" / name)
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "one.png").symlink_to(tmp_path / "store" / "one.png")
    (data / "t.csv").write_text("image,label\none.png,x\n")
    assert "a link out" in messages(read_cases(data))[0]
    assert "dataset.follow_links true" in messages(read_cases(data))[0]
    assert messages(read_cases(data, DatasetConfig(follow_links=True))) == []
    classes = tmp_path / "classes"
    classes.mkdir()
    (classes / "mel").symlink_to(tmp_path / "store")
    (classes / "loop").symlink_to(classes)
    with pytest.raises(FileNotFoundError, match="2 links to folders are not followed"):
        read_cases(classes)
    assert read_cases(classes, DatasetConfig(follow_links=True)).frame["label"].tolist() == ["mel", "mel"]


def test_patients_below_classes_are_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/mel/p1/1.png", "train/mel/p1/2.png", "train/nv/p2/1.png", "train/nv/p3/1.png"):
        picture(tmp_path / name)
    picture(tmp_path / "train/nv/.ipynb_checkpoints/1.png")
    (tmp_path / "train/nv/p2/notes.docx").touch()
    with caplog.at_level(logging.WARNING):
        cases = read_cases(tmp_path)
    assert cases.frame["label"].tolist() == ["mel", "mel", "nv", "nv"]
    assert cases.frame["group"].tolist() == ["mel/p1", "mel/p1", "nv/p2", "nv/p3"]
    told = caplog.text
    assert "1 files are not read" in told and ".docx" in told and "1 hidden folders" in told and "patients" in told
    assert read_cases(tmp_path, DatasetConfig(group_column="none")).frame["group"].isna().all()
    picture(tmp_path / "train/mel/p2/1.png")  # one patient under two classes
    with pytest.raises(ValueError, match="Cannot tell which folders are the classes"):
        read_cases(tmp_path)


def test_sites_above_classes_stay_sites(tmp_path: Path) -> None:
    for name in ("a/mel/1.png", "a/nv/1.png", "b/mel/1.png", "b/nv/1.png"):
        picture(tmp_path / name)
    assert read_cases(tmp_path).labels == ["mel", "nv"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("image;label;age\na.png;naïve;3,5\n".encode("latin-1"), ["not UTF-8", "semicolons"]),
        ("image\tlabel\na.png\tnaïve\n".encode("utf-16"), ["utf-16", "tabs"]),
        ("image|label\na.png|naïve\n".encode(), ["bars"]),
        ("image,label\na.png,naïve\n".encode("utf-8-sig"), []),
    ],
)
def test_separators_and_encodings_are_found_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, told: list[str]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "cases.csv").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        cases = read_cases(tmp_path)
    assert cases.frame["label"].tolist() == ["naïve"] and messages(cases) == []
    assert len(caplog.records) == len(told) and all(word in caplog.text for word in told)


def write_workbook(path: Path, rows: list[list[object]]) -> None:
    """A minimal workbook with one sheet."""
    cells = [
        [
            f"<c><v>{cell}</v></c>" if isinstance(cell, int) else f'<c t="inlineStr"><is><t>{cell}</t></is></c>'
            for cell in row
        ]
        for row in rows
    ]
    sheet = "".join(f"<row>{''.join(row)}</row>" for row in cells)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    link = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    to = '<Relationship Id="r1" Type="{}/{}" Target="{}"/>'
    parts = {
        "_rels/.rels": link.format(to.format(office, "officeDocument", "xl/workbook.xml")),
        "xl/_rels/workbook.xml.rels": link.format(to.format(office, "worksheet", "worksheets/sheet1.xml")),
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def write_open_document(path: Path, rows: list[list[object]]) -> None:
    """The same in ODS, the format of LibreOffice."""

    def cell(value: object) -> str:
        kind = f'"float" office:value="{value}"' if isinstance(value, float) else '"string"'
        return f"<table:table-cell office:value-type={kind}><text:p>{value}</text:p></table:table-cell>"

    space = "urn:oasis:names:tc:opendocument:xmlns"
    names = " ".join(f'xmlns:{name}="{space}:{name}:1.0"' for name in ("office", "table", "text"))
    body = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    sheet = f'<office:spreadsheet><table:table table:name="S">{body}</table:table></office:spreadsheet>'
    content = f"<office:document-content {names}><office:body>{sheet}</office:body></office:document-content>"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{space}:manifest:1.0"/>')
        archive.writestr("content.xml", content)


def write_old_workbook(path: Path, rows: list[list[str | float]]) -> None:
    """The same in XLS, the format of Excel 97: BIFF8 records in a compound file."""

    def record(kind: int, content: bytes = b"") -> bytes:
        return struct.pack("<HH", kind, len(content)) + content

    def cell(row: int, column: int, value: str | float) -> bytes:
        if isinstance(value, str):
            return record(0x204, struct.pack("<4HB", row, column, 0, len(value), 0) + value.encode())
        return record(0x203, struct.pack("<3Hd", row, column, 0, value))

    def entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
        text = f"{name}\0".encode("utf-16-le")
        return struct.pack("<64sHBB3i36xiQ", text, len(text), kind, 1, -1, -1, child, start, size)

    book, page = (record(0x809, struct.pack("<4H2I", 0x600, kind, 0, 0, 0, 6)) for kind in (5, 16))
    sheet = record(0x85, struct.pack("<I4B", len(book) + 17, 0, 0, 1, 0) + b"S")
    cells = b"".join(cell(i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row))
    stream = (book + sheet + record(10) + page + cells + record(10)).ljust(4096, b"\0")
    magic, ends = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", (0, 4096, -2, 0, -2, 0)
    head = struct.pack("<8s16x5H6x3I6i", magic, 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, *ends)
    table = [-3, -2, *range(3, 10), -2]  # sector 0 is this table, 1 the folder, 2 to 9 the book
    folder = entry("Root Entry", 5, 1, -2, 0) + entry("Workbook", 2, -1, 2, len(stream)) + bytes(256)
    sectors = struct.pack("<109i", 0, *[-1] * 108) + struct.pack("<128i", *table, *[-1] * 118) + folder
    path.write_bytes(head + sectors + stream)


def test_spreadsheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("python_calamine")
    picture(tmp_path / "a.png")
    write_workbook(tmp_path / "cases.xlsx", [["image", "label", "age"], ["a.png", "mel", 55], ["a.png", "nv", ""]])
    cases = read_cases(tmp_path)
    assert cases.frame[["image", "label", "age"]].values.tolist() == [["a.png", "mel", "55"], ["a.png", "nv", None]]
    (tmp_path / "cases.xlsx").unlink()
    write_open_document(
        tmp_path / "cases.ods", [["image", "label", "age"], ["a.png", "mel", 55.5], ["a.png", "nv", ""]]
    )
    cases = read_cases(tmp_path)
    assert cases.frame[["image", "label", "age"]].values.tolist() == [["a.png", "mel", "55.5"], ["a.png", "nv", None]]
    write_old_workbook(tmp_path / "old.xls", [["image", "label", "age"], ["a", "mel", 55.0], ["a.png", "nv", 40.5]])
    assert read_cases(tmp_path / "old.xls").frame["age"].tolist() == ["55", "40.5"]
    (tmp_path / "broken.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(ValueError, match=r"broken\.xls"):
        read_cases(tmp_path / "broken.xls")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ImportError, match=r"mmfusion\[excel\]"):
        read_cases(tmp_path / "cases.ods")


def test_ids_that_lost_their_zeros_name_the_file_that_has_them(tmp_path: Path) -> None:
    for i in (7, 12):
        picture(tmp_path / "images" / f"{i:05d}.png")
    (tmp_path / "cases.csv").write_text("image,label\n7,a\n12.0,b\n13,b\n")
    lost, decimal, absent = messages(read_cases(tmp_path))
    assert "images/00007.png does: leading zeros of the ids were lost" in lost
    assert "00012.png" in decimal and absent.endswith(str(tmp_path))


def test_a_long_table_is_read_without_a_look_at_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "cases.csv").write_text("image,label\na.png,x\na.png,y\n")
    for name in ("lstat", "stat"):

        def look(path: object, *args: Any, real: Any, **how: Any) -> Any:
            assert "a.png" not in str(path)
            return real(path, *args, **how)

        monkeypatch.setattr(os, name, partial(look, real=getattr(os, name)))
    assert read_cases(tmp_path).frame["image"].tolist() == ["a.png", "a.png"]


def test_images_inside_parquet(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": picture(tmp_path / "x.png", i).read_bytes(), "path": "../x.png"} for i in range(3)]
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    table = pa.table({"image": images, "label": [0, 1, 1]})
    described = json.dumps({"info": {"features": features}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": described}), tmp_path / "d.parquet")
    cases = read_cases(tmp_path / "d.parquet")
    assert cases.frame["label"].tolist() == ["no", "yes", "yes"] and messages(check_images(cases)) == []
    seen = [Image.open(cases.image_root / name).getpixel((0, 0)) for name in cases.frame["image"]]
    assert seen == [(i, 20, 40) for i in range(3)]


def test_parts_of_a_table_as_the_hub_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").touch()
    for level, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001-a1b2")):
        content = picture(tmp_path / "x.png", level).read_bytes()
        cells = {"image": [{"bytes": content, "path": "x.png"}], "label": ["b" if level else "a"]}
        parquet.write_table(pa.table(cells), tmp_path / "data" / f"{name}.parquet")
    (tmp_path / "x.png").unlink()
    with caplog.at_level(logging.WARNING):
        cases = read_cases(tmp_path)
    assert "3 Parquet files read as one table: train 2, validation 1 rows" in caplog.text
    assert cases.frame[["label", "split"]].values.tolist() == [["a", "train"], ["b", "train"], ["b", "val"]]
    seen = [Image.open(cases.image_root / name).getpixel((0, 0))[0] for name in cases.frame["image"]]
    assert seen == [0, 1, 2] and messages(check_images(cases)) == []
    assert read_cases(tmp_path, DatasetConfig(split_column=None)).frame["split"].isna().all()


def test_columns_have_the_names_that_the_data_set_says(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,dx,Age,sex\n,mel,50,m\n")
    config = DatasetConfig(columns={"label": "dx", "age": "Age"}, text_template="{age} {sex}")
    cases = read_cases(tmp_path, config)
    assert cases.frame.iloc[0][["label", "age"]].tolist() == ["mel", "50"]
    with pytest.raises(ValueError, match=r"'Agee' \(dataset\.columns, for 'age'\); did you mean 'Age'"):
        read_cases(tmp_path, DatasetConfig(columns={"age": "Agee"}))
    with pytest.raises(ValueError, match="has a column 'sex'"):
        read_cases(tmp_path, DatasetConfig(columns={"sex": "Age"}))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["nevus", "Nevus", "melanoma"], "in case or spaces: 'Nevus' and 'nevus'"),
        (["bcc", "b cc"], "case or spaces"),
        ([f"{0.1 + 0.37 * i:.2f}" for i in range(40)], "40 different numbers (0.1 to 14.53)"),
        ([str(i) for i in range(30)], "30 different numbers"),
        (["edema", "edema|effusion", "effusion"], "several labels in a cell, such as 'edema|effusion'"),
        (["a; b", "b; c", "a"], "several labels in a cell"),
    ],
)
def test_labels_that_are_no_classes(labels: list[str], words: str) -> None:
    (fault,) = label_faults(labels, "label")
    assert words in fault and "dataset.label_map" in fault


@pytest.mark.parametrize(
    "labels",
    [
        ["nevus, atypical", "melanoma"],
        ["carcinoma, basal cell", "carcinoma, squamous cell"],
        [str(i % 12) for i in range(40)],
        ["0.5", "1"],
        [str(i % 30) for i in range(300)],
    ],
)
def test_labels_that_are_classes(labels: list[str]) -> None:
    assert list(label_faults(labels, "label")) == []


def test_grades_are_in_numeric_order() -> None:
    assert in_order({"10", "2", "0"}) == ["0", "2", "10"]
    assert in_order({"T10", "T2", "T1"}) == ["T1", "T2", "T10"]
    assert in_order({"nv", "Mel", "bcc"}) == ["Mel", "bcc", "nv"]


def test_sound_images_are_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    for name in "abc":
        picture(data / f"{name}.png", ord(name))
    (data / "c.png").write_bytes(b"no picture")
    (data / "t.csv").write_text("image,label\na.png,x\nb.png,y\nc.png,y\n")
    decoded: list[str] = []
    plain = image_checks.read_slice

    def noted(path: Path, chosen: object) -> object:
        decoded.append(path.name)
        return plain(path, chosen)

    monkeypatch.setattr(image_checks, "read_slice", noted)
    assert len(check_images(read_cases(data)).problems) == 1 and sorted(decoded) == ["a.png", "b.png", "c.png"]
    decoded.clear()
    assert len(check_images(read_cases(data)).problems) == 1 and decoded == ["c.png"]  # only what was bad
    (data / "a.png").touch()  # the same content at another time
    picture(data / "b.png", 7)
    decoded.clear()
    check_images(read_cases(data))
    assert sorted(decoded) == ["b.png", "c.png"]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.xyz", "Thumbs.db", "._a.png", ".git/c.png", "__MACOSX/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = walk(tmp_path)
    assert found.images == ["a.png"]
    assert found.notes() == [
        "1 files are not read: not the suffix of an image (1 .xyz)",
        "2 hidden folders are not read (.git, __MACOSX)",
    ]


def test_a_split_drawn_before_a_label_map_goes_with_it(tmp_path: Path) -> None:
    from mmfusion.data.split_file import write_split_table

    rows = "".join(f"{i}.png,{i % 4}\n" for i in range(8))
    (tmp_path / "t.csv").write_text(f"image,label\n{rows}")
    for i in range(8):
        picture(tmp_path / f"{i}.png", i)
    cases = read_cases(tmp_path / "t.csv")
    split = tmp_path / "split.csv"
    frame = cases.frame.assign(split=pd.Series(["train", "test"] * 4, index=cases.frame.index))
    write_split_table(CaseTable(frame, cases.image_root), split)
    joined = {"0": "low", "1": "low", "2": "high", "3": "high"}
    cases = read_cases(tmp_path / "t.csv", DatasetConfig(split_table=str(split), label_map=joined))
    assert cases.splits == {"train": 4, "test": 4} and cases.labels == ["high", "low"]


def test_a_column_that_names_folders_is_offered_as_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "P1" / "series" / "1.png")
    (tmp_path / "labels.csv").write_text("note,patient,label\n..,P1,a\n")
    told = r"'patient' names folders, of slices with --dataset\.image_column patient --dataset\.slices all\."
    with pytest.raises(ValueError, match=told):
        read_cases(tmp_path, DatasetConfig(table="labels.csv"))
