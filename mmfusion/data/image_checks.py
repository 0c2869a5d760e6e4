"""Decoding every image once, so that training does not stop at a damaged one."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from PIL import Image

from mmfusion.data.bags import open_bag
from mmfusion.data.cases import CaseTable, object_array
from mmfusion.data.checks import emptied_cases
from mmfusion.data.kept_checks import KeptChecks
from mmfusion.data.problems import Problem, ProblemKind
from mmfusion.images.files import read_slice, read_slices
from mmfusion.images.grey_values import BlankImageError, rgb_pictures
from mmfusion.images.opening import reason_of
from mmfusion.progress import progress as shown_progress

#: Called with the path of an image in the table and the decoded image.
Look: TypeAlias = Callable[[str, Image.Image], None]
_CHUNK = 2048


def check_images(
    cases: CaseTable,
    workers: int | None = None,
    *,
    progress: bool = True,
    look: Look | None = None,
) -> CaseTable:
    """Decode every image once and add failures to ``cases.problems``; a case with other images is kept without them.

    Unchanged images that were valid before are not decoded again (:mod:`mmfusion.data.kept_checks`).

    Images are decoded in full, since a truncated file can be opened, and must not be blank; in a study, one slice must
    not be blank. A region of interest must be inside its image. Bags of feature vectors are also read in full, and all
    must have the most common width.

    Args:
        cases: The table; cases that are already bad are skipped.
        workers: Number of threads; None uses one per core, at most 8.
        progress: Show a bar in a terminal, otherwise a line per minute.
        look: Called from several threads with each image's path in the table and the decoded image (the middle one of
            a file with several), to inspect it; an exception is recorded as a problem of the image.

    Returns:
        The same table.
    """
    bad = cases.bad_rows
    # if images are inspected or their sizes needed, all are decoded
    is_kept = look is None and not cases.regions and cases.layout != "bags"
    kept = KeptChecks(cases.image_root, cases.layout, cases.slice, cases.slices) if is_kept else None
    todo = [
        (row, id_, image)
        for row, id_, images in cases.frame[["id", "image"]].itertuples(name=None)
        if row not in bad
        for image in ((images,) if cases.one_path else images or ())
        if image is not None and not (kept is not None and kept.is_sound(image))
    ]
    found: dict[int, list[Problem]] = {}
    widths: dict[int, int] = {}
    bar = shown_progress("Checking images", len(todo), "image", shown=progress)
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
                kind, message = reason
                place, part_of = (row, None) if cases.one_path else (cases.image_rows.get(image, row), row)
                problem = Problem.of_row(kind, place, id_, "image", image, message, part_of)
                found.setdefault(row, []).append(problem)
    if kept is not None:
        kept.save()
    if cases.layout == "slices":
        found = {row: _without_blank(problems, cases.frame.at[row, "image"]) for row, problems in found.items()}
    cases.problems += [problem for of_row in found.values() for problem in of_row]
    if cases.layout == "bags":
        cases.problems += _odd_widths(cases, widths)
    if not cases.one_path and any(found.values()):
        undecoded = {row: {problem.value for problem in problems} for row, problems in found.items()}
        cases.frame = cases.frame.assign(image=object_array(list(_without(cases, undecoded))))
        cases.problems += emptied_cases(cases)
    cases.problems.sort(key=lambda problem: problem.row)
    return cases


def _without_blank(problems: list[Problem], images: Sequence[str]) -> list[Problem]:
    """Problems of a study's images; blank ones count only if no other image is left."""
    if len(problems) == len(images):
        return problems
    return [problem for problem in problems if problem.kind is not ProblemKind.BLANK_IMAGE]


def _without(cases: CaseTable, left_out: dict[int, set[str | None]]) -> Iterator[tuple[str | None, ...] | None]:
    """The image cells of a table of studies without some of their images."""
    for row, images in cases.frame["image"].items():
        if gone := left_out.get(row):
            images = tuple(None if image in gone else image for image in images)
            images = images if cases.layout == "views" else tuple(filter(None, images))
        yield images if images is not None and any(images) else None


def _bag_problem(cases: CaseTable, row: int, name: str, widths: dict[int, int]) -> tuple[ProblemKind, str] | None:
    """Read a bag in full and record the width of its vectors."""
    try:
        widths[row] = open_bag(cases.image_root / name).shape[1]
    except ImportError:
        raise
    except Exception as error:  # damaged files may raise anything
        return ProblemKind.UNREADABLE_BAG, reason_of(error)
    return None


def _odd_widths(cases: CaseTable, widths: dict[int, int]) -> Iterator[Problem]:
    """A problem for each bag whose vectors do not have the most common width."""
    counts = Counter(widths.values())
    common = max(counts, key=lambda width: (counts[width], width), default=0)
    for row, width in widths.items():
        if width != common:
            id_, image = cases.frame.at[row, "id"], cases.frame.at[row, "image"]
            message = f"its vectors have width {width:,}, those of most bags {common:,}"
            yield Problem.of_row(ProblemKind.UNREADABLE_BAG, row, id_, "image", image, message)


def _image_problem(
    cases: CaseTable, row: int, name: str, look: Look | None, kept: KeptChecks | None
) -> tuple[ProblemKind, str] | None:
    region = (cases.regions or {}).get(row)
    several = cases.layout == "slices"
    try:
        path = cases.image_root / name
        shots = read_slices(path, cases.slices) if several else [read_slice(path, cases.slice)]
        pictures = rgb_pictures(shots)
        width, height = pictures[0].size
        if look is not None:
            middle = len(shots) // 2
            shot = shots[middle]
            look(name, shot if isinstance(shot, Image.Image) else pictures[middle])
    except ImportError:
        raise
    except BlankImageError as error:
        return ProblemKind.BLANK_IMAGE, str(error)
    except Exception as error:  # damaged files may raise anything: struct.error, SyntaxError, ValueError, OSError
        return ProblemKind.UNREADABLE_IMAGE, f"the image cannot be decoded: {reason_of(error)}"
    if region and not (region[0] >= 0 and region[2] <= width and region[1] >= 0 and region[3] <= height):
        message = f"the region of interest {region} is not inside the image, which has {width} x {height} pixels"
        return ProblemKind.REGION_OUTSIDE_IMAGE, message
    if kept is not None:
        kept.keep(name)
    return None
