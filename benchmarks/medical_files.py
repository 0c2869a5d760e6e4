"""Reading DICOM slices of 512 x 512 as images, compared with pydicom alone, in CPU time.

1,000 slices of 12 bits, uncompressed and as JPEG 2000, each read from its file. ``window``: pydicom's
``apply_voi_lut(apply_modality_lut(pixel_array))``; ``pixels``: its ``pixel_array`` alone. Budget: 0.5 of ``window`` for
uncompressed slices, and 1.2 of ``pixels`` for JPEG 2000.

    python benchmarks/medical_files.py [SLICES]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from mmfusion.data import open_image

SIDE, DIFFERENT = 512, 20


def write(folder: Path, count: int, compressed: bool) -> list[Path]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    contents, paths = [], []
    for i in range(min(count, DIFFERENT)):
        body = 1000 + 400 * np.sin(rows / (20 + i)) * np.cos(columns / 30) + rng.normal(0, 20, (SIDE, SIDE))
        values = body.clip(0, 4095).astype("<u2")
        contents.append(encapsulate([encode_array(values, bits_stored=12)]) if compressed else values.tobytes())
    for i in range(count):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
        meta.TransferSyntaxUID = JPEG2000Lossless if compressed else ExplicitVRLittleEndian
        made = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        made.Rows = made.Columns = SIDE
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
        made.RescaleSlope, made.RescaleIntercept, made.WindowCenter, made.WindowWidth = 1, -1024, 40, 400
        made.PixelData = contents[i % len(contents)]
        made["PixelData"].VR = "OB" if compressed else "OW"
        paths.append(folder / f"{compressed}{i}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def windowed(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    readers = {"mmfusion": open_image, "window": windowed, "pixels": lambda path: pydicom.dcmread(path).pixel_array}
    with tempfile.TemporaryDirectory() as folder:
        for compressed in (False, True):
            times: dict[str, list[float]] = {name: [] for name in readers}
            for turn, path in enumerate(write(Path(folder), count, compressed)):
                order = [*readers.items()]
                for name, read in order[turn % 3 :] + order[: turn % 3]:  # each reader goes first equally often
                    start = time.process_time()
                    read(path)
                    times[name].append(time.process_time() - start)
            mine, window, pixels = (statistics.median(times[name]) * 1000 for name in readers)
            kind = "JPEG 2000" if compressed else "uncompressed"
            print(f"{kind}, {count} slices: mmfusion {mine:.2f} ms")
            print(f"  of window ({window:.2f} ms) {mine / window:.2f}, of pixels ({pixels:.2f} ms) {mine / pixels:.2f}")


if __name__ == "__main__":
    main()
