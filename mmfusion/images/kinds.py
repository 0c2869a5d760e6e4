"""Selects the reader of an image file by its first bytes, or else by its name. Imports no heavy library."""

import os
from pathlib import Path

#: Suffixes by reader; ids without a suffix are tried with each in turn.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"),
    *(".jpe", ".jfif", ".gif", ".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".apng", ".heic", ".heif"),
)
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NIFTI_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES, *NIFTI_SUFFIXES, *ITK_SUFFIXES)

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
#: The two files of a split NIfTI image.
_NIFTI_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
#: Files with only part of an image, such as a header with pixels in another file.
DETACHED_SUFFIXES = (".mhd", ".nhdr", *_NIFTI_PAIR)


def image_kind(path: str | os.PathLike[str]) -> str:
    """``series`` (a folder), ``dicom``, ``nifti``, ``itk`` (MetaImage, NRRD), ``heic`` or ``picture``.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    name = os.fspath(path).lower()
    if os.path.isdir(path):
        return "series"
    if name.endswith(DICOM_SUFFIXES):
        return "dicom"
    with open(path, "rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return "dicom"
    if name.endswith((*NIFTI_SUFFIXES, *_NIFTI_PAIR)):
        return "nifti"
    if name.endswith(ITK_SUFFIXES) or head.startswith(b"NRRD"):
        return "itk"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "heic"
    return "picture"


def may_be_dicom(name: str) -> bool:
    """Whether a name looks like a DICOM file: by its suffix, or by lacking one (``IM0001``)."""
    suffix = os.path.splitext(name)[1][1:].lower()
    return f".{suffix}" in DICOM_SUFFIXES or not suffix or suffix.isdigit()


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by its name, or a DICOM file by its first bytes."""
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return True
    if not may_be_dicom(path.name) or path.name.startswith("."):
        return False
    try:
        return path.is_file() and image_kind(path) == "dicom"
    except OSError:  # e.g. no read permission
        return False


def image_stem(name: str) -> str:
    """A file name without its image suffix."""
    end = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(end)]
