"""Aggregate description of the data of a site, for comparison with another site."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from mmfusion.data import CaseTable, Processor
from mmfusion.images.opening import open_image
from mmfusion.inference.rows import ROW_ERRORS

#: Number of images opened for brightness and size, and for the crop.
OPENED, CROPPED = 200, 20

#: Quantile levels reported for a number.
SHARES = (0.05, 0.5, 0.95)

#: Image properties reported.
PICTURE = ("brightness", "width", "height")


def describe_site(cases: CaseTable, processor: Processor, fewest: int = 1) -> dict[str, Any]:
    """Distribution of labels, columns, missing cells, and brightness and size of some images.

    Args:
        cases: The rows; only counts and quantiles are returned.
        processor: Processor of the model.
        fewest: Minimum number of values for quantiles; with fewer they are None.

    Returns:
        ``rows``, ``labels`` (class -> rows; omitted for regression), ``missing`` (image, text or column ->
        share), ``columns`` (numeric column -> 5 %, 50 % and 95 % of its values; category -> share of each value that
        the model knows), ``brightness`` (0 to 1), ``width`` and ``height`` (pixels), each the 5 %, 50 % and 95 %.
    """
    frame, found = cases.frame, {"rows": len(cases)}
    task = processor.question
    positives = task.positives(task.encoded([cell if isinstance(cell, str) else None for cell in frame["label"]]))
    about: dict[str, Any] = {**found, "labels": {name: int(rows.sum()) for name, rows in positives.items()}}
    missing = {"image": float(frame["image"].isna().mean())} if processor.reads_images else {}
    if processor.tokenizer is not None:
        texts = [processor.text_of(row) for row in frame.to_dict("records")]
        missing["text"] = float(np.mean([not text for text in texts]))
    if (table := processor.table) is not None:
        cells = {name: frame[name].tolist() if name in frame else [None] * len(frame) for name in table.names}
        encoded = table.encode_columns(cells, processor.missing_values)
        columns: dict[str, Any] = {}
        for i, number in enumerate(table.numeric):
            values = np.asarray(encoded.numeric_values)[:, i]
            missing[number.name] = float(np.isnan(values).mean())
            columns[number.name] = _quantiles(values[~np.isnan(values)], fewest)
        for i, category in enumerate(table.categorical):
            ids = np.asarray(encoded.category_ids)[:, i]
            missing[category.name] = float((ids == 0).mean())
            known = {value: float((ids == place).mean()) for place, value in enumerate(category.values, start=2)}
            columns[category.name] = known | {"not known to the model": float((ids == 1).mean())}
        about["columns"] = columns
    return about | {"missing": missing} | (_pictures(cases, fewest) if processor.reads_images else {})


def crop_line(cases: CaseTable, processor: Processor) -> str | None:
    """One line on how much of an image the model sees, if less than two thirds of it, by the median of some images."""
    if processor.image_size is None or processor.crop_mode != "center":
        return None
    sizes = [picture.size for picture in _some_pictures(cases, CROPPED)]
    if not sizes:
        return None
    width, height = np.median(sizes, axis=0)
    side = processor.crop_pct * min(width, height)
    share = side**2 / (width * height)
    if share >= 2 / 3:
        return None
    seen = (
        f"images of {width:.0f} x {height:.0f} pixels: the model sees the middle {side:.0f} x {side:.0f}, {share:.0%}"
    )
    return f"{seen} of an image; --processor.crop_mode border shows all of it"


def _pictures(cases: CaseTable, fewest: int) -> dict[str, Any]:
    """Brightness and size of some images."""
    seen = []
    for picture in _some_pictures(cases, OPENED):
        size = picture.size
        picture.thumbnail((32, 32))
        seen.append((float(np.asarray(picture).mean()) / 255, *size))
    columns = np.array(seen).reshape(-1, 3).T
    return {name: _quantiles(values, fewest) for name, values in zip(PICTURE, columns, strict=True)}


def _some_pictures(cases: CaseTable, count: int) -> Iterator[Image.Image]:
    """Readable images, equally spaced in the table."""
    paths = [path for path in cases.frame["image"] if path]
    paths = [path if isinstance(path, str) else next(filter(None, path), None) for path in paths]
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).astype(int))] if paths else []
    for path in filter(None, chosen):
        with contextlib.suppress(*ROW_ERRORS):
            yield open_image(cases.image_root / path, slice="middle")


def _quantiles(values: Any, fewest: int) -> list[float] | None:
    return [float(f"{value:.4g}") for value in np.quantile(values, SHARES)] if len(values) >= max(1, fewest) else None
