"""Mapping of gray values to black and white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.data import Processor, check_images, open_image, read_cases
from mmfusion.data.problems import ProblemKind

GREY = np.tile(np.linspace(0, 1, 64), (64, 1))
TRUTH = np.rint(GREY * 255)


def _with(values: np.ndarray, place: Any, value: float) -> np.ndarray:
    changed = values.copy()
    changed[place] = value
    return changed


TWELVE = (GREY * 4095).astype(np.uint16)
HOUNSFIELD = (GREY * 2000 - 1000).astype(np.int16)
TEXT, TOP = np.s_[:4, -20:], np.s_[:8]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        (TWELVE, None),
        (GREY.astype(np.float32), None),
        (GREY.astype(">f8"), None),
        ((GREY * 2**31).astype(np.uint32), None),
        (HOUNSFIELD, None),
        (_with(TWELVE, (0, 0), 65535), np.s_[:1]),
        (_with(_with(TWELVE, (0, 0), 65535), (0, 1), 50000), np.s_[:1]),  # two that differ
        (_with(TWELVE, TEXT, 65535), TEXT),
        (_with(HOUNSFIELD, TOP, -32768), TOP),
        (_with(HOUNSFIELD, TOP, -2000), TOP),
        (_with(GREY.astype(np.float32), TOP, np.nan), TOP),
        (_with(GREY.astype(np.float32), TOP, np.inf), TOP),
        (np.repeat(TWELVE[:, :, None], 3, 2), None),
    ],
)
def test_the_same_picture_in_any_values(values: np.ndarray, place: Any) -> None:
    shown = np.asarray(open_image(values)).astype(float)
    kept = np.ones_like(GREY, dtype=bool)
    if place is not None:
        kept[place] = False
    assert np.abs(shown[:, :, 1] - TRUTH)[kept].max() <= 1
    longer = np.asarray(open_image(np.concatenate([values, values])))  # shown through a table of all values
    np.testing.assert_array_equal(longer[: len(shown)], shown)


def test_windows() -> None:
    def shown(window: Any) -> list[int]:
        return np.asarray(open_image(HOUNSFIELD, window=window))[0, :, 0].tolist()

    units = HOUNSFIELD[0].astype(float)
    assert shown("full") == np.rint((units + 1000) / 2000 * 255).tolist()
    assert shown([0, 500]) == np.rint(np.clip((units + 250) / 500, 0, 1) * 255).tolist()
    noisy = np.random.default_rng(0).normal(size=(100, 100))
    low, high = np.percentile(noisy, [0.5, 99.5])
    expected = np.clip((noisy - low) / (high - low), 0, 1) * 255
    assert np.abs(np.asarray(open_image(noisy, window="percentile"))[:, :, 0] - expected).max() < 1
    with pytest.raises(ValueError, match="the file has no window of its own"):
        shown("dicom")
    for wrong in ("soft", [1], [1, 0], [1, "a"]):
        with pytest.raises(ValueError, match=r"processor\.window must be auto, full"):
            Processor(window=wrong)


def test_deep_colors_keep_both_bytes(tmp_path: Path) -> None:
    import struct
    import zlib

    values = np.stack([TWELVE, TWELVE // 2, TWELVE // 4], -1)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    shown = np.asarray(open_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(shown, np.asarray(open_image(values)))
    assert np.abs(shown - values / 4095 * 255).max() <= 1


def test_min_is_white(tmp_path: Path) -> None:
    Image.fromarray(TWELVE).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert np.abs(np.asarray(open_image(tmp_path / "a.tif"))[:, :, 0] - (255 - TRUTH)).max() <= 1


def test_a_model_without_a_window_keeps_its_pictures_of_8_bits(tmp_path: Path) -> None:
    color = np.stack([TRUTH, TRUTH // 2, TRUTH.T, TRUTH], -1).astype(np.uint8)
    kinds = {"RGBA": "png", "RGB": "jpg", "P": "gif", "LA": "png", "CMYK": "jpg", "L": "bmp", "1": "png"}
    saved = Processor(image_size=64).to_dict()
    assert saved.pop("window") == "auto"
    old = Processor.from_dict(saved)
    assert old.window is None and "window" not in old.to_dict()
    for mode, suffix in kinds.items():
        path = tmp_path / f"{mode}.{suffix}"
        Image.fromarray(color).convert(mode).save(path)
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(open_image(path, window=None)), expected)
        item = old.encode(path)["pixel_values"]
        assert torch.equal(
            item, Processor(image_size=64, window=None).encode(Image.fromarray(expected))["pixel_values"]
        )


def test_blank_images_are_bad_rows(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 7).save(tmp_path / "grey.png")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    Image.fromarray(TWELVE).save(tmp_path / "good.png")
    (tmp_path / "t.csv").write_text("image,label\ngrey.png,a\nnan.tif,b\ngood.png,a\n")
    problems = check_images(read_cases(tmp_path), progress=False).problems
    assert [(problem.row, problem.kind) for problem in problems] == [
        (1, ProblemKind.BLANK_IMAGE),
        (2, ProblemKind.BLANK_IMAGE),
    ]
