"""The demo data: reproducible, without problems, and not solvable with one modality."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mmfusion.data import CaseTable, DatasetConfig, check_images, make_demo, read_cases
from mmfusion.data.demo_data import CLASSES


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    root = make_demo(tmp_path_factory.mktemp("demo"), n=500, seed=0)
    return read_cases(root, DatasetConfig(group_column="patient_id"))


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_it_has_no_problems(demo: CaseTable) -> None:
    assert check_images(demo, progress=False).problems == []
    assert len(demo) == 500
    assert demo.labels == ["amber", "basalt", "coral", "dune", "ember"]
    assert demo.metadata == ["age", "sex", "localization", "patient_id"]
    assert demo.splits["train"] == pytest.approx(350, abs=12)


def test_class_shares_are_long_tailed(demo: CaseTable) -> None:
    assert Counter(demo.frame["label"]) == {"amber": 210, "basalt": 100, "coral": 90, "dune": 60, "ember": 40}


def test_some_rows_lack_a_modality(demo: CaseTable) -> None:
    no_image, no_text = demo.frame["image"].isna(), demo.frame["text"].isna()
    assert 4 <= no_image.sum() <= 30 and 4 <= no_text.sum() <= 30  # 15 expected of each
    assert not (no_image & no_text).any()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = _digest(make_demo(tmp_path / "a", n=50, seed=3))
    assert _digest(make_demo(tmp_path / "b", n=50, seed=3)) == first
    assert _digest(make_demo(tmp_path / "c", n=50, seed=4)) != first


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 50 rows, got n=49"):
        make_demo(tmp_path, n=49)


def test_text_names_no_class(demo: CaseTable) -> None:
    words = " ".join(demo.frame["text"].dropna()).lower()
    assert not any(kind.name in words for kind in CLASSES)


def _paleness_by_radius(image: Image.Image) -> np.ndarray:
    """Mean brightness of rings around the lesion's center, which shows where it is darkest."""
    grey = np.asarray(image.convert("L"), dtype=float)
    dark = np.clip(np.median(grey) - grey - 10, 0, None)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    centre_y, centre_x = (dark * y).sum() / dark.sum(), (dark * x).sum() / dark.sum()
    rings = np.hypot(y - centre_y, x - centre_x).astype(int) // 4
    return np.bincount(rings.ravel(), weights=dark.ravel())[:8] / np.bincount(rings.ravel())[:8]


def _accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=10.0))
    with threadpool_limits(1):  # on so few rows, threads cost more than they save
        return cross_val_score(model, features, labels, cv=3).mean()


def test_neither_modality_suffices_and_both_do(demo: CaseTable) -> None:
    frame = demo.frame.dropna(subset=["image", "text"])
    labels = frame["label"].to_numpy()
    profiles = np.stack([_paleness_by_radius(Image.open(demo.image_root / name)) for name in frame["image"]])
    profiles /= profiles.max(axis=1, keepdims=True)
    text = frame["text"].str.lower()
    words = np.stack([text.str.contains(word) for word in ("itch", "bl[e]*d")], axis=1).astype(float)
    # the classes as products: interactions of the two
    both = np.concatenate([profiles, words, *(profiles * words[:, i : i + 1] for i in range(2))], axis=1)
    image_only, text_only, fused = _accuracy(profiles, labels), _accuracy(words, labels), _accuracy(both, labels)
    assert 0.55 < image_only < 0.67  # 0.62 is the best possible
    assert 0.62 < text_only < 0.73  # 0.68
    assert fused > 0.95
    ages = np.stack([frame["age"].fillna("50").astype(float) / 90, frame["sex"] == "male"], axis=1).astype(float)
    assert _accuracy(ages, labels) < 0.46  # 0.42 is the share of the largest class
