"""Synthetic demo data set: dermoscopy-like images with patient text, both needed to tell the classes apart.

The classes are invented and have no medical meaning.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmfusion.data.splits import group_split
from mmfusion.files import written_table

IMAGE_SIDE = 96
_MISSING_SHARE = 0.03


@dataclass(frozen=True)
class DemoClass:
    """An invented class: image pattern, content of the text, and share of the rows."""

    name: str
    ringed: bool
    history: str
    share: float


#: The image cannot separate amber/coral or basalt/dune/ember, the text cannot separate amber/basalt or coral/dune:
#: the best accuracy is 0.62 from the image, 0.68 from the text, and 1 from both (on rows that have both).
CLASSES = (
    DemoClass("amber", ringed=False, history="stable", share=0.42),
    DemoClass("basalt", ringed=True, history="stable", share=0.20),
    DemoClass("coral", ringed=False, history="itching", share=0.18),
    DemoClass("dune", ringed=True, history="itching", share=0.12),
    DemoClass("ember", ringed=True, history="bleeding", share=0.08),
)

_HISTORIES = {
    "stable": ("Unchanged for years.", "Has looked the same since childhood.", "No change noticed by the patient."),
    "itching": ("Itching for several weeks.", "Started to itch last month.", "The patient reports itch at night."),
    "bleeding": ("Bleeds on slight touch.", "Bled twice this month.", "Bleeding was seen on the clothes."),
}
_REMARKS = ("", "", "Works outdoors.", "No family history.", "Seen at a routine visit.", "Uses sunscreen.")
_SITES = ("back", "chest", "abdomen", "face", "lower extremity", "upper extremity")
_SKIN_TONES = np.array([(236, 202, 184), (224, 182, 158), (203, 156, 126), (176, 128, 98)], dtype=np.float32)
_LESION_TONES = np.array([(96, 58, 44), (112, 70, 48), (84, 52, 52), (122, 76, 60)], dtype=np.float32)


def make_demo(folder: str | Path, n: int = 1000, seed: int = 0) -> Path:
    """Write ``metadata.csv`` and ``images/*.jpg``; the same ``n`` and ``seed`` give the same bytes.

    Columns: image, label, age, sex, localization, text, patient_id, split. Five classes, the rarest with 8 % of the
    rows; age, sex and site are uninformative. About 3 % of the rows lack the image and as many lack the text. A
    patient has one to three rows, all in one split.

    Args:
        folder: Output folder; created if missing.
        n: Number of rows, at least 50.
        seed: Random seed.

    Returns:
        The folder.

    Raises:
        ValueError: Fewer than 50 rows.
    """
    if n < 50:
        raise ValueError(f"The demo data set needs at least 50 rows, got n={n}.")
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    bounds = np.round(np.cumsum([kind.share for kind in CLASSES]) * n).astype(int)
    kinds = [CLASSES[i] for i in rng.permutation(np.searchsorted(bounds, np.arange(n), side="right"))]
    patients = np.repeat(np.arange(n), rng.integers(1, 4, size=n))[:n]
    splits = group_split([kind.name for kind in kinds], patients.tolist(), seed=seed)
    missing = rng.choice(3, size=n, p=[1 - 2 * _MISSING_SHARE, _MISSING_SHARE, _MISSING_SHARE])

    with written_table(folder / "metadata.csv") as table:
        table.writerow(("image", "label", "age", "sex", "localization", "text", "patient_id", "split"))
        for i, kind in enumerate(kinds):
            image = "" if missing[i] == 1 else f"demo_{i:05d}.jpg"
            text = "" if missing[i] == 2 else f"{rng.choice(_HISTORIES[kind.history])} {rng.choice(_REMARKS)}".strip()
            age = "" if rng.random() < 0.05 else str(rng.integers(4, 18) * 5)
            sex, site = rng.choice(("female", "male")), rng.choice(_SITES)
            table.writerow((image, kind.name, age, sex, site, text, f"P{patients[i]:05d}", splits[i]))
            if image:
                draw_lesion(kind.ringed, np.random.default_rng((seed, i))).save(folder / "images" / image, quality=90)
    return folder


def draw_lesion(ringed: bool, rng: np.random.Generator, side: int = IMAGE_SIDE) -> Image.Image:
    """Draw one image: skin and a blob with an irregular border, dark throughout or, if ``ringed``, with a pale core."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    centre_x, centre_y = map(float, rng.uniform(0.4, 0.6, size=2))
    angle = np.arctan2(y - centre_y, x - centre_x)
    border = rng.uniform(0.2, 0.32) * np.ones_like(x)
    for wave in (2, 3, 5, 8):
        border *= 1 + rng.uniform(0, 0.14) / np.sqrt(wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.hypot(x - centre_x, y - centre_y) / border  # 1 at the border

    pigment = _inside(radius, edge=1.0, softness=rng.uniform(0.06, 0.16))
    if ringed:
        pigment *= 1 - 0.75 * _inside(radius, edge=rng.uniform(0.5, 0.65), softness=0.12)
    pigment *= rng.uniform(0.75, 1.0) * (1 + 0.25 * _noise(rng, 12, side))

    skin = _SKIN_TONES[rng.integers(len(_SKIN_TONES))] * (1 + 0.06 * _noise(rng, 5, side))[..., None]
    lesion = _LESION_TONES[rng.integers(len(_LESION_TONES))] * rng.uniform(0.85, 1.15)
    picture = skin + pigment[..., None] * (lesion - skin)
    picture += 4 * rng.standard_normal(picture.shape, dtype=np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _inside(radius: np.ndarray, edge: float, softness: float) -> np.ndarray:
    """Soft step: 1 well inside the edge, 0 well outside."""
    return 0.5 * (1 - np.tanh((radius - edge) / softness))


def _noise(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """(side, side) smooth noise in about -1..1 with ``cells`` bumps across."""
    coarse = Image.fromarray(rng.uniform(-1, 1, size=(cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
