"""Share of out-of-distribution images that a shipped model flags, at 5 % false alarms on its test rows.

Target: 99 % of spine MRI, photographs, noise and blank images; 60 % of inverted and gray images and of close-ups of
hair. An image that is refused counts as flagged. Photographs, noise and hair are synthetic. DATA is the folder of
HAM10000 (`metadata.csv` and `images/`); `--spine` is a folder of MRI slices, whose line is omitted without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

import mmfusion
from mmfusion.inference.split import read_split

SIDE = (600, 450)


def photograph(rng: np.random.Generator) -> Image.Image:
    """Sky, ground, and some colored boxes and balls."""
    across, down = np.meshgrid(np.arange(SIDE[0]) / SIDE[0], np.arange(SIDE[1]) / SIDE[1])
    sky = np.stack([0.3 + 0.3 * down, 0.5 + 0.3 * down, 0.9 - 0.1 * down], axis=-1)
    skyline = rng.uniform(0.4, 0.7) + 0.05 * np.sin(across * rng.uniform(5, 20))
    scene = np.where((down > skyline)[..., None], rng.random(3) * 0.6, sky)
    picture = Image.fromarray((scene * 255).astype(np.uint8))
    drawing = ImageDraw.Draw(picture)
    for _ in range(rng.integers(3, 12)):
        x, y, size = rng.integers(0, SIDE[0]), rng.integers(SIDE[1] // 3, SIDE[1]), rng.integers(20, 150)
        shape = drawing.rectangle if rng.random() < 0.6 else drawing.ellipse
        shape([x, y, x + size, y + size], fill=tuple(rng.integers(0, 255, 3).tolist()), outline=(0, 0, 0))
    return picture


def noise(rng: np.random.Generator) -> Image.Image:
    """Uniform or normal noise in each pixel."""
    shape = (SIDE[1], SIDE[0], 3)
    values = rng.integers(0, 256, shape) if rng.random() < 0.5 else rng.normal(128, rng.uniform(10, 60), shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def blank(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", SIDE, tuple(rng.integers(0, 256, 3).tolist()))


def hair(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An enlarged corner of an image with dark lines over it."""
    w, h = picture.size
    close = picture.crop((0, 0, w // 4, h // 4)).resize(SIDE)
    drawing = ImageDraw.Draw(close)
    for _ in range(rng.integers(25, 60)):
        x, y, angle, length = (
            rng.uniform(0, SIDE[0]),
            rng.uniform(0, SIDE[1]),
            rng.uniform(0, np.pi),
            rng.uniform(180, 600),
        )
        along = np.linspace(-0.5, 0.5, 12)
        points = zip(
            x + along * length * np.cos(angle) + 20 * np.sin(3 * along), y + along * length * np.sin(angle), strict=True
        )
        dark = int(rng.integers(5, 50))
        drawing.line(list(points), fill=(dark, dark // 2 + 5, dark // 3), width=int(rng.integers(2, 6)))
    return close


def strange(own: Sequence[Image.Image], spine: str | None) -> dict[str, tuple[float, list[Image.Image]]]:
    """Name -> target share, and the images."""
    rng = np.random.default_rng(0)
    made: dict[str, Callable[[np.random.Generator], Image.Image]] = {
        "photographs": photograph,
        "noise": noise,
        "blank": blank,
    }
    found = {name: (0.99, [make(rng) for _ in own]) for name, make in made.items()}
    if spine is not None:
        files = sorted(Path(spine).glob("*.jpg"))[: len(own)]
        found["spine MRI"] = (0.99, [Image.open(file).convert("RGB") for file in files])
    found["inverted"] = (0.6, [ImageOps.invert(picture) for picture in own])
    found["gray"] = (0.6, [ImageOps.grayscale(picture).convert("RGB") for picture in own])
    found["hair"] = (0.6, [hair(picture, rng) for picture in own])
    return found


def familiar(predictor: mmfusion.Predictor, rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Familiarity of each row; -1 for refused rows."""
    return np.array([-1.0 if "error" in found else float(found["familiarity"]) for found in predictor.predict(rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--spine")
    parser.add_argument("--model", default="mibf_v2_lite0.ham10000")
    parser.add_argument("--rows", type=int, default=400, help="test rows; a quarter as many pictures of each kind")
    options = parser.parse_args()
    predictor = mmfusion.Predictor.from_pretrained(options.model)
    read = {"dataset": predictor.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    cases = read_split(options.data, "test", **read)
    some = cases.frame.sample(options.rows, random_state=0)
    columns = predictor.processor.table.names if predictor.processor.table is not None else []
    rows = [
        {"image": str(cases.image_root / row["image"]), **{name: row[name] for name in columns}}
        for row in some.to_dict("records")
    ]
    own = familiar(predictor, rows)
    threshold = np.quantile(own, 0.05)
    print(
        f"{options.model}: {len(own)} test rows, 5 % below {threshold:.4f}\n{'pictures':<14}{'flagged':>8}{'wanted':>8}"
    )
    pictures = [Image.open(row["image"]).convert("RGB") for row in rows[: options.rows // 4]]
    for name, (wanted, found) in strange(pictures, options.spine).items():
        flagged = (familiar(predictor, [{"image": picture} for picture in found]) < threshold).mean()
        print(f"{name:<14}{flagged:>8.3f}{wanted:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
