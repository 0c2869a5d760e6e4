"""Volumes (NIfTI, MetaImage, NRRD) as slices, in the patient's orientation."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfusion.images.frames import Frame, Stack, Values, of_extra

#: Classes of nibabel with orientation information.
_NIFTI = ("Nifti1Image", "Nifti1Pair", "Nifti2Image", "Nifti2Pair", "MGHImage")
#: Ratio of spacings above which the coarsest axis is taken as the scan direction.
_COARSER = 1.5


def nifti_stack(path: str | os.PathLike[str]) -> Stack:
    """The slices of a NIfTI or MGH file, read with nibabel.

    Raises:
        ImportError: nibabel is not installed.
        ValueError: The file has no orientation, or more than three dimensions.
    """
    with of_extra("volumes", path, "a volume"):
        import nibabel
    image: Any = nibabel.load(path)
    if type(image).__name__ not in _NIFTI:
        raise ValueError(f"{type(image).__name__} has no orientation of the volume")
    _check_dimensions(image.shape[3:])
    if len(image.shape) < 3:
        raise ValueError(f"it has no volume: its shape is {image.shape}")
    canonical = nibabel.as_closest_canonical(image)
    values = np.asanyarray(canonical.dataobj)
    values = values.reshape(values.shape[:3])
    if values.dtype.names:  # RGB24
        values = np.stack([values[name] for name in values.dtype.names[:3]], axis=-1)
    # from right, front, up (x, y, z) to left, back, up (z, y, x)
    values = np.moveaxis(values, (0, 1, 2), (2, 1, 0))[:, ::-1, ::-1]
    return volume_stack(values, canonical.header.get_zooms()[2::-1])


def itk_stack(path: str | os.PathLike[str]) -> Stack:
    """The slices of a MetaImage or NRRD file, read with SimpleITK.

    Raises:
        ImportError: SimpleITK is not installed.
        ValueError: The file is damaged, or has more than three dimensions.
    """
    with of_extra("volumes", path, "a volume"):
        import SimpleITK as sitk
    try:
        image = sitk.ReadImage(os.fspath(path))
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip()]
        raise ValueError(reason[-1].strip() if reason else "SimpleITK cannot read it") from None
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    _check_dimensions(image.GetSize()[3:])
    if image.GetNumberOfComponentsPerPixel() not in (1, 3):
        raise ValueError(f"each of its voxels has {image.GetNumberOfComponentsPerPixel()} values, not 1 or 3")
    if image.GetDimension() == 2:
        return volume_stack(sitk.GetArrayFromImage(image)[None], (1.0, 1.0, 1.0))
    image = sitk.DICOMOrient(image, "LPS")
    return volume_stack(sitk.GetArrayFromImage(image), image.GetSpacing()[::-1])


def _check_dimensions(beyond: Sequence[int]) -> None:
    if any(length != 1 for length in beyond):
        what, sizes = "dimensions of time, directions or channels besides its three", " x ".join(map(str, beyond))
        raise ValueError(f"it has {what}: {sizes}; save one volume of them")


def volume_stack(values: Values, spacing: Sequence[float]) -> Stack:
    """The slices of a volume in display orientation: the patient's right on the left, front or head on top.

    They are cut across the axis with clearly the coarsest spacing (the scan direction), or else axially, and ordered
    upwards (axial), from front to back (coronal) or from right to left (sagittal).

    Args:
        values: (Z, Y, X), or (Z, Y, X, 3) for colors; axes point up, back and left.
        spacing: Voxel spacing along Z, Y and X.
    """
    spacing = [float(abs(distance)) for distance in spacing]
    axis = max(range(3), key=lambda each: spacing[each])
    if spacing[axis] < _COARSER * max(spacing[:axis] + spacing[axis + 1 :]):
        axis = 0
    if axis:
        values = values[::-1]  # head on top
    slices: Any = np.moveaxis(values, axis, 0)
    return Stack(len(slices), lambda position: Frame(np.ascontiguousarray(slices[position])))
