"""DICOM, volumes and other files with several slices, compared with the libraries that read them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmfusion.auditing.audited_data import look_at
from mmfusion.data import DatasetConfig, MultimodalDataset, Processor, check_images, open_image, read_cases
from mmfusion.data.problems import ProblemKind
from mmfusion.images.dicom_files import dicom_stack
from mmfusion.images.opening import open_pictures
from mmfusion.inference.reading import read_unlabelled

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")

RAMP = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (64, 1))


def _dicom(path: Path, values: np.ndarray, **elements: Any) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = elements.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    made = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, elements.pop("photometric", "MONOCHROME2")
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = values.astype("<u2" if meta.TransferSyntaxUID.is_little_endian else ">u2").tobytes()
    made["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, made, enforce_file_format=True)


def _grey(*args: Any, **kwargs: Any) -> np.ndarray:
    return np.asarray(open_image(*args, **kwargs))[:, :, 0].astype(float)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_dicom_is_shown_as_pydicom_shows_it(tmp_path: Path, photometric: str, function: str) -> None:
    window = {"WindowCenter": 300, "WindowWidth": 900, "RescaleSlope": 2, "RescaleIntercept": -1024}
    _dicom(tmp_path / "IM0001", RAMP, photometric=photometric, VOILUTFunction=function, **window)
    made = pydicom.dcmread(tmp_path / "IM0001")
    units = pydicom.pixels.apply_modality_lut(made.pixel_array, made)
    shown = pydicom.pixels.apply_voi_lut(units, made)
    expected = (shown + 1024) / (2 * 4095) * 255
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(_grey(tmp_path / "IM0001") - expected).max() <= 1
    assert np.abs(_grey(tmp_path / "IM0001", window="dicom") - expected).max() <= 1
    whole = np.clip((units - units.min()) / np.ptp(units) * 255, 0, 255)
    whole = 255 - whole if photometric == "MONOCHROME1" else whole
    assert np.abs(_grey(tmp_path / "IM0001", window="full") - whole).max() <= 1
    chosen = np.clip((units - 0) / 400 * 255, 0, 255)
    chosen = 255 - chosen if photometric == "MONOCHROME1" else chosen
    assert np.abs(_grey(tmp_path / "IM0001", window=[200, 400]) - chosen).max() <= 1


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_uncompressed_pixels_are_those_of_pydicom(tmp_path: Path, signed: int, bits: int) -> None:
    allocated = 8 if bits == 8 else 16
    values = np.random.default_rng(bits).integers(0, 2**allocated, (2, 5, 6)).astype(f"<u{allocated // 8}")
    stored = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    for given in (values, values & (2 ** (bits - 1) - 1)):  # with and without bits beyond those stored
        _dicom(tmp_path / "a.dcm", given, NumberOfFrames=2, PixelData=given.tobytes(), **stored)
        made = pydicom.dcmread(tmp_path / "a.dcm")
        for index in range(2):
            read = dicom_stack(tmp_path / "a.dcm").read(index)
            np.testing.assert_array_equal(getattr(read, "values", read), made.pixel_array[index])
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:-9])
    with pytest.raises(ValueError, match="less than expected"):
        open_image(tmp_path / "a.dcm", slice=1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pydicoms_own_files_are_shown_as_it_shows_them() -> None:
    """Single gray frames with a window, in many transfer syntaxes; files that pydicom cannot read are refused."""
    root, compared = Path(pydicom.__file__).parent / "data" / "test_files", 0
    for path in sorted(root.glob("*.dcm")):
        made = pydicom.dcmread(path, force=True)
        try:
            units = pydicom.pixels.apply_modality_lut(made.pixel_array, made)
        except Exception:
            with pytest.raises((ValueError, ImportError)):
                open_image(path, slice=0)
            continue
        if made.get("WindowWidth") is None or units.ndim != 2 or "VOILUTSequence" in made:
            continue
        shown = pydicom.pixels.apply_voi_lut(units, made)
        slope, lowest = made.get("RescaleSlope", 1), -(2 ** (made.BitsStored - 1)) * made.PixelRepresentation
        lowest = lowest * slope + made.get("RescaleIntercept", 0)
        expected = (shown - lowest) / ((2**made.BitsStored - 1) * slope) * 255
        expected = 255 - expected if made.PhotometricInterpretation == "MONOCHROME1" else expected
        assert np.abs(_grey(path) - expected).max() <= 1, path.name
        compared += 1
    assert compared >= 10


def test_a_series_lies_in_the_order_of_its_positions(tmp_path: Path) -> None:
    for number, z in enumerate([30.0, -10.0, 10.0]):
        place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        _dicom(tmp_path / "S" / f"a{number}", RAMP // 2 + np.uint16(10 * z + 100), InstanceNumber=number, **place)
    shown = open_pictures([tmp_path / "S"], several=True)
    assert [picture.getpixel((0, 0))[0] for picture in shown] == [0, 21, 42]  # of 0, 200 and 400 in 0 to 2416
    assert [p.getpixel((0, 0))[0] for p in open_pictures([tmp_path / "S"], several=True, slices="1:")] == [0, 23]
    with pytest.raises(ValueError, match=r"S cannot be decoded: it has 3 slices.*dataset\.slice selects one"):
        open_image(tmp_path / "S")
    (tmp_path / "t.csv").write_text("image,study,label\nS/a0,x,a\nS/a1,x,a\nS/a2,x,a\n")
    cases = read_cases(tmp_path, DatasetConfig(study_column="study", image_root="."))
    assert cases.frame["image"].tolist() == [("S/a1", "S/a2", "S/a0")]
    _dicom(tmp_path / "S" / "a9", RAMP, SeriesInstanceUID="1.2.9")
    with pytest.raises(ValueError, match="has 2 DICOM series"):
        open_pictures([tmp_path / "S"], several=True)


def test_a_file_of_frames_has_their_own_windows_and_positions(tmp_path: Path) -> None:
    groups = []
    for z, center in ((5.0, 1000), (1.0, 3000)):
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [pydicom.Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, z]
        frame.PlaneOrientationSequence = [pydicom.Dataset()]
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        frame.FrameVOILUTSequence = [pydicom.Dataset()]
        frame.FrameVOILUTSequence[0].WindowCenter, frame.FrameVOILUTSequence[0].WindowWidth = center, 2
        groups.append(frame)
    _dicom(tmp_path / "e.dcm", np.stack([RAMP, RAMP]), NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    white = [(np.asarray(p)[0, :, 0] > 0).sum() for p in open_pictures([tmp_path / "e.dcm"], several=True)]
    assert white == [64 - 47, 64 - 16]  # the frame at z = 1, whose window is at 3000, comes first


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize(("spacing", "plane"), [((1, 1, 4), 0), ((4, 1, 1), 2), ((1, 4, 1), 1), ((1, 1, 1), 0)])
def test_a_volume_is_cut_as_it_was_scanned(tmp_path: Path, suffix: str, spacing: tuple, plane: int) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)  # z, y, x of LPS
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image = sitk.DICOMOrient(image, "SAR")  # stored along other directions
    path = tmp_path / f"v{suffix}"
    sitk.WriteImage(image, str(path))
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    np.testing.assert_array_equal(back, values)
    upright = values if plane == 0 else values[::-1]  # the head on top
    expected = (np.moveaxis(upright, plane, 0) + 400.0) / 800 * 255
    shown = open_pictures([path], several=True, window=[0, 800])
    assert len(shown) == values.shape[plane]
    for picture, slice_ in zip(shown, expected, strict=True):
        assert np.abs(np.asarray(picture)[:, :, 0] - np.clip(slice_, 0, 255)).max() <= 1
    if suffix == ".nii.gz":
        canonical = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
        np.testing.assert_array_equal(canonical[::-1, ::-1].T, values)


def test_the_order_of_bytes_changes_nothing(tmp_path: Path) -> None:
    values = np.tile(np.arange(0, 4096, 32, dtype=np.uint16), (128, 1))
    _dicom(tmp_path / "a.dcm", values, syntax=pydicom.uid.ExplicitVRBigEndian)
    Image.fromarray(values.astype(">u2")).save(tmp_path / "a.tif")
    volume = np.repeat(values[::-1, ::-1].T[:, :, None], 2, axis=2).astype(np.int16)  # x, y, z of RAS
    nibabel.save(nibabel.MGHImage(volume, np.diag([1, 1, 4, 1])), tmp_path / "a.mgz")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 1, 4, 1]), header), tmp_path / "a.nii")
    for name in ("a.dcm", "a.tif", "a.mgz", "a.nii"):
        np.testing.assert_array_equal(open_image(tmp_path / name, slice=0), open_image(values), err_msg=name)


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 5), np.float32), np.eye(4)), tmp_path / "4d.nii")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), 1j, np.complex64), np.eye(4)), tmp_path / "phase.nii")
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    (tmp_path / "bad.mha").write_bytes(b"nothing")
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    _dicom(tmp_path / "plan.dcm", RAMP, Modality="RTPLAN")
    made = pydicom.dcmread(tmp_path / "plan.dcm")
    del made.PixelData
    made.save_as(tmp_path / "plan.dcm")
    reasons = {
        "4d.nii": "dimensions of time",
        "phase.nii": "complex64",
        "bad.nii.gz": "bad",
        "bad.mha": "bad",
        "a.eps": "format is not supported",
        "plan.dcm": r"no image \(RTPLAN\)",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"{name} cannot be decoded: .*{reason}") as raised:
            open_image(tmp_path / name, slice=0)
        assert "\n" not in str(raised.value)


def test_a_format_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dicom(tmp_path / "a.dcm", RAMP)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "a.mha").write_bytes(b"")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")

    for name in ("pydicom", "nibabel", "SimpleITK", "pillow_heif"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, extra in (("a.dcm", "dicom"), ("a.nii.gz", "volumes"), ("a.mha", "volumes"), ("a.heic", "heic")):
        with pytest.raises(ImportError, match=rf'{name} is .* pip install "mmfusion\[{extra}\]"'):
            open_image(tmp_path / name)


def test_volumes_are_studies_and_one_slice_is_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        volume = sitk.GetImageFromArray(rng.normal(size=(5, 12, 12)).astype(np.float32))
        sitk.WriteImage(volume, str(tmp_path / f"{name}.mha"))
    (tmp_path / "t.csv").write_text("image,label\na,x\nb.mha,y\n")

    def item(**options: Any) -> dict[str, Any]:
        cases = check_images(read_cases(tmp_path, DatasetConfig(**options)), progress=False).resolve()
        return MultimodalDataset(cases, Processor(cases.labels, image_size=8))[0]

    assert item(slices="all")["pixel_values"].shape == (5, 3, 8, 8)
    assert item(slices="0:5:2")["slice_mask"] == [True] * 3 and item(slices=2)["slice_mask"] == [True] * 2
    middle = item(slice="middle")["pixel_values"]
    assert middle.shape == (3, 8, 8) and middle.equal(item(slice=2)["pixel_values"])
    found = check_images(read_cases(tmp_path), progress=False).problems
    assert {problem.kind for problem in found} == {ProblemKind.UNREADABLE_IMAGE}
    assert "dataset.slice selects one (0 to 4, or middle)" in found[0].message
    with pytest.raises(ValueError, match=r"dataset\.slices must be all, start:stop:step"):
        DatasetConfig(slices="1-5")


def test_facts_of_headers_are_columns_and_identifiers_are_not(tmp_path: Path) -> None:
    _dicom(tmp_path / "a.dcm", RAMP, PatientAge="055Y", PatientSex="F", BodyPartExamined="CHEST", PatientName="Doe")
    _dicom(tmp_path / "b.dcm", RAMP, PatientAge="006M")
    (tmp_path / "broken.dcm").write_bytes(b"\x08\0\x05\0CS\xff\xffbroken" * 3)
    _dicom(tmp_path / "S" / "1.dcm", RAMP, PatientSex="M")
    (tmp_path / "S" / "0.txt").write_text("of the export")
    (tmp_path / "t.csv").write_text("image,label\na.dcm,x\nb.dcm,y\nbroken.dcm,y\nS,y\n")
    facts = {"age": "PatientAge", "sex": "PatientSex", "site": "BodyPartExamined"}
    frame = read_cases(tmp_path, DatasetConfig(header_columns=facts)).frame
    none = [None] * 3
    cells = [["55", "female", "chest"], ["0.5", None, None], none, [None, "male", None]]
    assert frame[["age", "sex", "site"]].values.tolist() == cells
    (tmp_path / "t.csv").unlink()  # images alone, to predict
    frame = read_unlabelled(tmp_path, DatasetConfig(header_columns=facts), ["x"]).frame
    assert frame["age"].dropna().tolist() == ["55", "0.5"]
    for identifier in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate"):
        with pytest.raises(ValueError, match=f"'{identifier}', which may identify a patient"):
            DatasetConfig(header_columns={"x": identifier})


def test_an_audit_looks_at_series_and_at_volumes_that_begin_in_air(tmp_path: Path) -> None:
    for number in range(3):
        _dicom(tmp_path / "S" / f"{number}.dcm", RAMP if number else 0 * RAMP, InstanceNumber=number)
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([0 * RAMP, RAMP, RAMP.T])), str(tmp_path / "v.mha"))
    rows = "".join(f"{name},{label}\n" for name, label in (("S", "x"), ("v.mha", "y")))
    (tmp_path / "t.csv").write_text(f"image,label\n{rows}")
    facts: dict[str, Any] = {}
    cases = read_cases(tmp_path, DatasetConfig(slices="all"))
    check_images(
        cases, progress=False, look=lambda name, image: facts.update({name: look_at(cases.image_root / name, image)})
    )
    assert cases.problems == [] and sorted(facts) == ["S", "v.mha"]
    assert all(np.ptp(found.thumbnail) > 100 for found in facts.values())


def test_a_study_of_blank_and_broken_files_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("L", (8, 8)).save(tmp_path / f"{name}1.png")
        Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / f"{name}2.png")
    (tmp_path / "a2.png").write_bytes(b"broken")
    (tmp_path / "t.csv").write_text("image,study,label\na1.png,a,x\na2.png,a,x\nb1.png,b,y\nb2.png,b,y\n")
    cases = check_images(read_cases(tmp_path, DatasetConfig(study_column="study")), progress=False)
    kinds = [ProblemKind.BLANK_IMAGE, ProblemKind.UNREADABLE_IMAGE, ProblemKind.STUDY_WITHOUT_IMAGES]
    assert sorted((problem.case, problem.kind.value) for problem in cases.problems) == sorted(
        (1, kind.value) for kind in kinds
    )


def test_pixels_in_a_file_of_their_own_are_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([RAMP, RAMP])), str(tmp_path / "v.mhd"))
    (tmp_path / "t.csv").write_text("image,label\nv.mhd,x\n")
    config = DatasetConfig(slice=0)
    assert check_images(read_cases(tmp_path, config), progress=False).problems == []
    (tmp_path / "v.raw").write_bytes(b"")
    assert len(check_images(read_cases(tmp_path, config), progress=False).problems) == 1


def test_what_is_sound_as_a_study_is_not_so_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([RAMP, RAMP])), str(tmp_path / "v1.mha"))
    (tmp_path / "t.csv").write_text("image,study,label\nv1.mha,a,x\n")
    studies = check_images(read_cases(tmp_path, DatasetConfig(study_column="study")), progress=False)
    assert studies.layout == "slices" and studies.problems == []
    (problem,) = check_images(read_cases(tmp_path), progress=False).problems
    assert problem.kind is ProblemKind.UNREADABLE_IMAGE


def test_pages_of_a_tiff_and_an_animation(tmp_path: Path) -> None:
    pages = [Image.fromarray((RAMP // 16 + i).astype(np.uint8)) for i in range(3)]
    for name in ("a.tif", "a.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match="has 3 slices"):
            open_image(tmp_path / name)
        assert open_image(tmp_path / name, slice=2).getpixel((5, 5))[0] == pages[2].getpixel((5, 5))
        assert len(open_pictures([tmp_path / name], several=True)) == 3
