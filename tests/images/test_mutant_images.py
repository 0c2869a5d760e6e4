"""Damaged images are opened, or refused in one line, equally by every reader, without other programs."""

from __future__ import annotations

import io
import random
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmfusion.data import DatasetConfig, check_images, open_image, read_cases

SIDE = 24
#: format -> suffix, mode, options of Pillow.
FORMATS = {
    "png": ("PNG", "RGB", {}),
    "gray.png": ("PNG", "I;16", {}),
    "palette.png": ("PNG", "P", {}),
    "jpg": ("JPEG", "RGB", {}),
    "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
    "tif": ("TIFF", "RGB", {}),
    "packed.tif": ("TIFF", "L", {"compression": "tiff_lzw"}),
    "float.tif": ("TIFF", "F", {}),
    "bmp": ("BMP", "RGB", {}),
    "gif": ("GIF", "P", {}),
    "webp": ("WEBP", "RGB", {"lossless": True}),
    "ppm": ("PPM", "RGB", {}),
}
#: beginnings of files that do not match their names.
STRANGERS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    b"<svg/>",
    b"PK\3\4",
    b"",
    b"\0" * 99,
    b"BM",
    b"GIF89a",
)


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    """A file of each format."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    pixels[4:20, 4:12] = (200, 30, 90)
    files = {}
    for name, (kind, mode, options) in FORMATS.items():
        picture = Image.fromarray(pixels)
        if mode == "I;16":
            picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode != "RGB":
            picture = picture.convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


def damaged(name: str, content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A file with some of its bytes changed, and how."""
    kind = rng.choice(("flip", "flip", "header", "insert", "delete", "cut", "swap", "size", "stranger", "nan"))
    place = rng.randrange(len(content) if kind != "header" else min(64, len(content)))
    if kind in ("flip", "header"):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 20))):
            changed[min(place + rng.randrange(32), len(content) - 1)] = rng.randrange(256)
        return bytes(changed), kind
    if kind == "insert":
        return content[:place] + rng.randbytes(rng.choice((1, 4, 300))) + content[place:], kind
    if kind == "delete":
        return content[:place] + content[place + rng.choice((1, 4, 300)) :], kind
    if kind == "cut":
        return content[:place], kind
    if kind == "swap":
        return content[place:] + content[:place], kind
    if kind == "size" and name.endswith("png"):
        wide, high = rng.choice(((60_000, 60_000), (0, 9), (2**31 - 1, 1), (1, 2**31 - 1), (25, 24)))
        header = b"IHDR" + struct.pack(">II", wide, high) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:], kind
    if kind == "nan" and name == "float.tif":
        values = np.array(Image.open(io.BytesIO(content)))
        values[rng.randrange(SIDE), rng.randrange(SIDE)] = rng.choice((np.nan, np.inf, -np.inf))
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "TIFF")
        return buffer.getvalue(), kind
    return rng.choice(STRANGERS) + rng.randbytes(rng.choice((0, 40))), "stranger"


def opened(path: Path) -> Image.Image | str:
    try:
        return open_image(path)
    except (ValueError, OSError) as error:
        assert len(str(error)) < 1000 and "\n" not in str(error) and str(path) in str(error), str(error)
        return str(error)


def test_mutants(sound: dict[str, bytes], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.exec") else None)
    counts: Counter[str] = Counter()
    slowest, verdicts = 0.0, {}
    for seed in range(request.config.getoption("--mutants") or 240):
        rng = random.Random(seed)
        name = rng.choice(list(FORMATS))
        content, kind = damaged(name, sound[name], rng)
        path = tmp_path / f"{seed}.{name.rpartition('.')[2]}"
        path.write_bytes(content)
        began = time.process_time()
        picture = opened(path)
        slowest = max(slowest, time.process_time() - began)
        verdicts[path.name] = isinstance(picture, Image.Image)
        counts["read" if verdicts[path.name] else "refused in one line"] += 1
        if isinstance(picture, Image.Image):
            values = np.asarray(picture)
            assert picture.mode == "RGB" and values.size and kind != "stranger", f"mutant {seed}"
            assert values.min() < values.max(), f"mutant {seed} is read as a blank picture"
            if kind == "nan":  # one pixel, and the others as they were
                clean = np.asarray(open_image(_written(tmp_path / "clean.tif", sound[name])))
                assert (values == clean).mean() > 0.99, f"mutant {seed}"
            if kind == "cut" and name.endswith(("png", "jpg", "bmp", "ppm", "float.tif")):
                assert len(content) > 0.9 * len(sound[name]), f"mutant {seed}: half a picture is read as a whole one"
    assert not started and slowest < 10
    table = pd.DataFrame({"image": list(verdicts), "label": "x"})
    cases = check_images(read_cases(table, DatasetConfig(image_root=str(tmp_path))), progress=False)
    bad = {problem.value for problem in cases.problems}
    assert {name: name not in bad for name in verdicts} == verdicts  # training and prediction agree
    print(dict(counts), f"slowest {slowest:.2f} s")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
