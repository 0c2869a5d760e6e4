"""Findings about image files: duplicates, sizes and modes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmfusion.auditing.audited_data import SIDE, AuditedData
from mmfusion.auditing.findings import Finding

SAME = 0.99  # minimum correlation of the thumbnails of duplicates
_LOW = 8  # number of frequencies per direction to find candidates
_BLANK = 1.0  # standard deviation in gray levels below which an image is blank
_SMALL = 32  # pixels of the shorter side
_CHUNK = 4096


def image_table(data: AuditedData) -> dict[str, Any]:
    """Number of images, and their sizes and modes, most frequent first."""
    facts = data.facts.values()
    sizes = Counter(f"{fact.size[0]} x {fact.size[1]}" for fact in facts)
    modes = Counter(fact.mode for fact in facts)
    return {"images": len(facts), "sizes": dict(sizes.most_common()), "modes": dict(modes.most_common())}


def check_duplicates(data: AuditedData) -> Iterator[Finding]:
    """The same file, or the same image, in several cases."""
    homes: dict[str, list[int]] = {}  # digest -> indices of the cases with it
    pictures: dict[str, np.ndarray] = {}
    for position, cell in enumerate(data.frame["image"]):
        for image in (cell,) if isinstance(cell, str) else cell or ():
            if fact := data.facts.get(image):
                pictures[fact.digest] = fact.thumbnail
                cases = homes.setdefault(fact.digest, [])
                if position not in cases:
                    cases.append(position)
    equal = [(cases[0], other) for cases in homes.values() for other in cases[1:]]
    yield from _pairs(data, "same_file", "the same file", equal)

    digests = list(pictures)
    thumbnails = np.stack([pictures[digest] for digest in digests]) if digests else np.empty((0, SIDE, SIDE))
    blank = thumbnails.std(axis=(1, 2)) < _BLANK
    if blank.any():
        rows = sorted({case for i in np.flatnonzero(blank) for case in homes[digests[i]]})
        message = f"{int(blank.sum()):,} images are blank (a single gray value)"
        fix = "Drop them; an empty image cell is a missing modality."
        yield Finding("blank_image", "warning", message, fix, data.frame["id"].iloc[rows].tolist())
    shown = np.flatnonzero(~blank)
    near = [(homes[digests[shown[i]]][0], homes[digests[shown[j]]][0]) for i, j in near_duplicates(thumbnails[shown])]
    yield from _pairs(data, "near_duplicate", "almost the same image", [(a, b) for a, b in near if a != b])


def near_duplicates(thumbnails: np.ndarray) -> np.ndarray:
    """Pairs of images that differ only in compression, size, brightness, contrast, mirroring and quarter turns.

    Two images are duplicates if their thumbnails correlate at 0.99 or more in one of the eight orientations of a
    square. Candidates come from a k-d tree over the magnitudes of low-frequency cosine coefficients, invariant
    to mirroring; a quarter turn swaps the directions, hence the norm over both. This map never increases distances:
    a radius of ``sqrt(2 (1 - 0.99))`` misses no pair.

    Args:
        thumbnails: (N, S, S) grayscale images, none constant.

    Returns:
        (pairs, 2) int array of indices, the lower first.
    """
    from scipy.fft import dctn
    from scipy.spatial import KDTree

    if len(thumbnails) < 2:
        return np.empty((0, 2), dtype=int)
    x = thumbnails.astype(np.float32)
    x -= x.mean(axis=(1, 2), keepdims=True)
    x /= np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
    spectrum = dctn(x, axes=(1, 2), norm="ortho")[:, :_LOW, :_LOW]
    upper, right = np.triu_indices(_LOW, k=1)
    both_ways = np.hypot(spectrum[:, upper, right], spectrum[:, right, upper])
    diagonal = np.abs(np.diagonal(spectrum, axis1=1, axis2=2))
    tree = KDTree(np.concatenate([both_ways, diagonal], axis=1))
    candidates = tree.query_pairs(np.sqrt(2 * (1 - SAME)) + 1e-5, output_type="ndarray")
    chunks = np.array_split(candidates, len(candidates) // _CHUNK + 1)
    pairs = np.concatenate([chunk[_best_correlation(*x[chunk.T]) >= SAME] for chunk in chunks])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _best_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,) highest correlation of each pair over the eight orientations of a square; inputs (P, S, S) of unit norm."""
    positions = [np.rot90(side, turns, axes=(1, 2)) for side in (y, y[:, :, ::-1]) for turns in range(4)]
    return np.max([np.einsum("pij,pij->p", x, position) for position in positions], axis=0)


def _pairs(data: AuditedData, check: str, what: str, pairs: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Findings about pairs of cases with the same image, worst first."""
    if not pairs:
        return
    first, second = np.array(pairs).T
    frame = data.frame
    ids, splits, labels = (frame[name].to_numpy(dtype=object) for name in ("id", "split", "label"))
    across_splits, across_labels = splits[first] != splits[second], labels[first] != labels[second]
    same_group, rest = data.groups[first] == data.groups[second], ~across_splits & ~across_labels
    split = "in one split, in different groups" if frame["group"].notna().any() else "in one split"
    regroup = "If this is one patient under two names, give both rows the same group, or another split may divide them."
    kinds = [
        ("across_splits", "error", across_splits, "in two splits", "Give both rows one group, and draw a new split."),
        ("across_labels", "error", across_labels, "under two labels", "Find the right label, and drop the other row."),
        ("in_a_split", "warning", rest & ~same_group, split, regroup),
        ("in_a_group", "note", rest & same_group, "in one group", "Each is counted twice."),
    ]
    # several regions of one image are several cases, which may differ
    for kind, severity, chosen, where, fix in kinds if data.cases.regions is None else kinds[:1]:
        if chosen.any():
            rows = [f"{ids[a]} = {ids[b]}" for a, b in zip(first[chosen], second[chosen], strict=True)]
            shown = "1 pair of rows shows" if len(rows) == 1 else f"{len(rows):,} pairs of rows show"
            yield Finding(f"{check}_{kind}", severity, f"{shown} {what} {where}", fix, rows)


def check_sizes(data: AuditedData) -> Iterator[Finding]:
    """Images that are small, or differ from the others in size or mode."""
    names = list(data.facts)
    if not names:
        return
    sizes = np.array([data.facts[name].size for name in names], dtype=float)
    small = sizes.min(axis=1) < _SMALL
    if small.any():
        message = f"{int(small.sum()):,} images are less than {_SMALL} pixels wide or high"
        fix = "They may be thumbnails; look for the originals."
        yield Finding("small_image", "warning", message, fix, [names[i] for i in np.flatnonzero(small)])
    area, shape = np.log(sizes.prod(axis=1)), np.log(sizes[:, 0] / sizes[:, 1])
    odd = (np.abs(area - np.median(area)) > np.log(4)) | (np.abs(shape - np.median(shape)) > np.log(1.5))
    odd &= ~small
    if odd.any():
        unlike = "a quarter or four times the usual number of pixels, or another shape (one and a half times as long)"
        message = f"{int(odd.sum()):,} of {len(names):,} images have {unlike}"
        fix = "Outside training the central square is cropped: check that it contains the relevant part."
        yield Finding("odd_size", "note", message, fix, [names[i] for i in np.flatnonzero(odd)])
    modes = Counter(fact.mode for fact in data.facts.values()).most_common()
    if len(modes) > 1:
        message = f"images have several modes: {', '.join(f'{mode} ({count:,})' for mode, count in modes)}"
        fix = "All are read as RGB. If they are from different devices, check whether the device reveals the label."
        rows = [name for name in names if data.facts[name].mode != modes[0][0]]
        yield Finding("mixed_modes", "note", message, fix, rows)
