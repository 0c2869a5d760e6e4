"""Every image decoded once, before a training run finds the one that cannot be."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from PIL import Image, ImageOps

from mmfusion.data.bags import open_bag
from mmfusion.data.cases import CaseTable, object_array
from mmfusion.data.checks import emptied_cases
from mmfusion.data.kept_checks import KeptChecks
from mmfusion.data.problems import Problem, ProblemKind

#: Called with an image's path in the table and the decoded image.
Look: TypeAlias = Callable[[str, Image.Image], None]
_CHUNK = 2048


def check_images(
    cases: CaseTable,
    workers: int | None = None,
    *,
    progress: bool = True,
    look: Look | None = None,
) -> CaseTable:
    """Decode every image once and add those that fail to ``cases.problems``; a case with others goes on without them.

    What was found sound before, and has not changed, is not decoded again (:mod:`mmfusion.data.kept_checks`).

    An image is decoded whole, since a truncated file opens as well as any other. A region of interest has to lie within
    its image. Bags of feature vectors are read whole too, and have to be as wide as most of them.

    Args:
        cases: The table; cases that are bad already are not looked at again.
        workers: Number of threads; None takes one per core, at most 8.
        progress: Show a progress bar on a terminal.
        look: Called from several threads with each image's path in the table and the decoded image, for whoever wants
            to know more of it; what it raises counts against the image.

    Returns:
        The same table.
    """
    from tqdm import tqdm

    bad = cases.bad_rows
    # where an image is only decoded, what was found sound before is not decoded again
    kept = KeptChecks(cases.image_root) if look is None and not cases.regions and cases.layout != "bags" else None
    todo = [
        (row, id_, image)
        for row, id_, images in cases.frame[["id", "image"]].itertuples(name=None)
        if row not in bad
        for image in ((images,) if cases.one_path else images or ())
        if image is not None and not (kept is not None and kept.is_sound(image))
    ]
    undecoded: dict[int, set[str]] = {}
    widths: dict[int, int] = {}
    bar = tqdm(total=len(todo), desc="Checking images", unit="image", disable=None if progress else True)
    with bar, ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            if cases.layout == "bags":
                reasons = pool.map(lambda case: _bag_problem(cases, case[0], case[2], widths), chunk)
            else:
                reasons = pool.map(lambda case: _image_problem(cases, case[0], case[2], look, kept), chunk)
            for (row, id_, image), reason in zip(chunk, reasons, strict=True):
                bar.update()
                if reason is None:
                    continue
                place, part_of = row, None
                if not cases.one_path:
                    place, part_of = cases.image_rows.get(image, row), row
                    undecoded.setdefault(row, set()).add(image)
                kind, message = reason
                cases.problems.append(Problem.of_row(kind, place, id_, "image", image, message, part_of))
    if kept is not None:
        kept.save()
    if cases.layout == "bags":
        cases.problems += _odd_widths(cases, widths)
    if undecoded:
        cases.frame = cases.frame.assign(image=object_array(list(_without(cases, undecoded))))
        cases.problems += emptied_cases(cases)
    cases.problems.sort(key=lambda problem: problem.row)
    return cases


def _without(cases: CaseTable, left_out: dict[int, set[str]]) -> Iterator[tuple[str | None, ...] | None]:
    """The image cells of a table of studies, without some of their images."""
    for row, images in cases.frame["image"].items():
        if gone := left_out.get(row):
            images = tuple(None if image in gone else image for image in images)
            images = images if cases.layout == "views" else tuple(filter(None, images))
        yield images if images is not None and any(images) else None


def _bag_problem(cases: CaseTable, row: int, name: str, widths: dict[int, int]) -> tuple[ProblemKind, str] | None:
    """Read a bag whole, and note the width of its vectors."""
    try:
        widths[row] = open_bag(cases.image_root / name).shape[1]
    except ImportError:
        raise
    except Exception as error:  # a damaged file may raise anything
        return ProblemKind.UNREADABLE_BAG, str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def _odd_widths(cases: CaseTable, widths: dict[int, int]) -> Iterator[Problem]:
    """A problem for each bag whose vectors are not as wide as those of most bags."""
    counts = Counter(widths.values())
    common = max(counts, key=lambda width: (counts[width], width), default=0)
    for row, width in widths.items():
        if width != common:
            id_, image = cases.frame.at[row, "id"], cases.frame.at[row, "image"]
            message = f"its vectors are {width:,} wide, and those of most bags {common:,}"
            yield Problem.of_row(ProblemKind.UNREADABLE_BAG, row, id_, "image", image, message)


def _image_problem(
    cases: CaseTable, row: int, name: str, look: Look | None, kept: KeptChecks | None
) -> tuple[ProblemKind, str] | None:
    region = (cases.regions or {}).get(row)
    try:
        with Image.open(cases.image_root / name) as image:
            image.load()
            width, height = ImageOps.exif_transpose(image).size if region else image.size
            if look is not None:
                look(name, image)
    except Exception as error:  # a damaged file may raise anything: struct.error, SyntaxError, ValueError, OSError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ProblemKind.UNREADABLE_IMAGE, f"the image cannot be decoded: {reason}"
    if region and not (region[0] >= 0 and region[2] <= width and region[1] >= 0 and region[3] <= height):
        message = f"the region of interest {region} does not lie in the image, which is {width} x {height} pixels"
        return ProblemKind.REGION_OUTSIDE_IMAGE, message
    if kept is not None:
        kept.keep(name)
    return None
