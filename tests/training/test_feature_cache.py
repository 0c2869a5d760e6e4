"""Features of frozen encoders are computed once, with the same metrics."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_runs import run_config, without_plots

import mmfusion
from mmfusion.data import MultimodalDataset, Processor, read_cases
from mmfusion.inference.predictor import Predictor
from mmfusion.models import load_model
from mmfusion.training import RunConfig, TrainResult, train
from mmfusion.training.feature_cache import FeatureCache
from mmfusion.training.features import FeatureStore


def _frozen(data: Path, output: Path, cache: Path | None, **train_args: Any) -> RunConfig:
    folder = None if cache is None else str(cache)
    config = run_config(
        data, output, "plain", freeze_encoders=True, feature_cache=folder, precision="fp32", **train_args
    )
    return replace(config, processor=replace(config.processor, augment="none"))


@pytest.fixture(scope="module")
def cached(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """A finished run and its features, which tests may read and copy but not change."""
    root = tmp_path_factory.mktemp("cached")
    with without_plots():
        return train(_frozen(toy, root / "run", root / "cache")), root / "cache"


def _stores(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_a_run_on_cached_features_is_the_run_without(
    cached: tuple[TrainResult, Path], toy: Path, tmp_path: Path
) -> None:
    plain = train(_frozen(toy, tmp_path / "plain", None))
    result, cache = cached
    # all rows together: another split or fold finds them
    assert sorted(name.split("-")[0] for name in _stores(cache)) == ["image", "text"]
    # other batch sizes round differently, and AdamW divides by gradients near zero
    for a, b in zip(plain.history, result.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-3)
    one, other = (pd.read_csv(run.folder / "predictions.csv") for run in (plain, result))
    assert one["id"].tolist() == other["id"].tolist()
    np.testing.assert_allclose(one.filter(like="p_"), other.filter(like="p_"), atol=1e-3)
    # stored features equal those of the frozen tower for a single row
    model, processor = load_model(plain.best), Processor.from_pretrained(plain.best)
    store = FeatureStore(next(cache.glob("image-*")))
    rows = MultimodalDataset(read_cases(toy), processor)
    for i in (0, 17, 36):
        encoded = model.image_tower.encode(rows.collate([rows[i]])["pixel_values"])
        for name, expected in encoded.items():
            np.testing.assert_allclose(store[i][name], expected[0].detach(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_what_is_behind_the_encoders_shares_the_features(
    cached: tuple[TrainResult, Path], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cached[1]
    before = _stores(cache)
    config = _frozen(toy, tmp_path / "b", cache, loss="focal", lr=1e-3)
    config = replace(config, model=replace(config.model, fusion="gated", head="moe", head_args=None))
    monkeypatch.setattr(FeatureCache, "_encode", lambda *_: pytest.fail("encoded again"))
    train(config)
    assert _stores(cache) == before


def test_other_pixels_or_weights_are_computed_anew(cached: tuple[TrainResult, Path], toy: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(cached[1], tmp_path / "cache")
    config = _frozen(toy, tmp_path / "b", cache, epochs=1)
    kinds = [name.split("-")[0] for name in _stores(cache)]
    train(replace(config, processor=replace(config.processor, image_size=48)))
    assert sorted(name.split("-")[0] for name in _stores(cache)) == sorted([*kinds, "image"])
    # random encoders of another seed have other weights
    train(replace(config, output=str(tmp_path / "c"), seed=1))
    assert len(_stores(cache)) == 5
    train(replace(config, output=str(tmp_path / "d"), processor=replace(config.processor, window="full")))
    assert len(_stores(cache)) == 6


def test_augmented_views_are_taken_in_turn(toy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = _frozen(toy, tmp_path / "a", cache, feature_views=2, epochs=3)
    train(replace(config, processor=replace(config.processor, augment="report")))
    abouts = [json.loads((path / "index.json").read_text())["about"] for path in cache.glob("image-*")]
    views = sorted(about["augment"] for about in abouts if about["augment"])
    assert len(abouts) == 3 and views == [["report", 0, 0], ["report", 0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze_encoders": False}, "train.freeze_encoders must be true with train.feature_cache; got False."),
        ({"feature_views": 1}, "train.feature_views must be 0 with processor.augment none; got 1."),
        ({"feature_cache": None, "feature_views": 1}, "train.feature_views must be 0 without train.feature_cache"),
    ],
)
def test_settings_that_do_not_go_together(toy: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = _frozen(toy, tmp_path / "a", tmp_path / "cache")
    with pytest.raises(ValueError, match=message):
        train(replace(config, train=replace(config.train, **change)))


def test_encoders_that_are_trained_are_refused(tmp_path: Path) -> None:
    model = mmfusion.create_model("test_mibf", num_classes=3)
    with pytest.raises(ValueError, match="image encoder is not frozen"):
        FeatureCache(tmp_path, Predictor(model, Processor(labels=["a", "b"], image_size=32)), None)
    assert torch.is_grad_enabled()


def test_columns_are_read_beside_the_features(toy: Path, tmp_path: Path) -> None:
    """Image and text features are cached; the table tower is trained on the rows."""
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    table = pd.read_csv(data / "cases.csv")
    rng = np.random.default_rng(0)
    table["age"] = rng.normal(50, 15, len(table)).round(1)
    table["sex"] = rng.choice(["man", "woman"], len(table))
    table.loc[3, ["age", "sex"]] = [np.nan, None]
    table.to_csv(data / "cases.csv", index=False)
    runs = []
    for cache in (None, tmp_path / "cache"):
        config = _frozen(data, tmp_path / f"run{cache is None}", cache)
        named = {"numeric_columns": ["age"], "categorical_columns": ["sex"]}
        model = replace(config.model, table_encoder="table_mlp", table_args={"dropout": 0.0, "cell_dropout": 0.0})
        with without_plots():
            runs.append(train(replace(config, dataset=replace(config.dataset, **named), model=model)))
    assert sorted(name.split("-")[0] for name in _stores(tmp_path / "cache")) == ["image", "text"]
    plain, cached = runs
    for a, b in zip(plain.history, cached.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)
    one, other = (pd.read_csv(run.folder / "predictions.csv") for run in runs)
    np.testing.assert_allclose(one.filter(like="p_"), other.filter(like="p_"), atol=1e-3)
    fresh = mmfusion.create_model(f"local-dir:{plain.best}").table_tower
    assert fresh.numeric.standardize.mean.item() == pytest.approx(table["age"][:24].mean(), abs=1)
