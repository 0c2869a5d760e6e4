"""The processor: encoding, padding, and saved values."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.data import Processor, fit_wordpiece
from mmfusion.images.augmentations import row_rng
from mmfusion.images.opening import eval_image, to_tensor

SKIN = "{age}-year-old {sex}, lesion on the {localization}"
TEXTS = ["55-year-old male, lesion on the back", "lesion on the face. Itches and bleeds since last summer."]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return fit_wordpiece(TEXTS, vocab_size=200)


@pytest.fixture
def processor(tokenizer: Any) -> Processor:
    return Processor(labels=["mel", "nv"], image_size=16, tokenizer=tokenizer, text_template=SKIN, max_length=12)


def _picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size=(20, 24, 3), dtype=np.uint8))


def test_batch_keys_shapes_and_types(processor: Processor) -> None:
    batch = processor(images=[_picture(), _picture(1)], text=TEXTS, labels=["nv", 0])
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "pixel_values": ((2, 3, 16, 16), torch.float32),
        "image_present": ((2,), torch.bool),
        "input_ids": ((2, 12), torch.int64),
        "attention_mask": ((2, 12), torch.int64),
        "text_present": ((2,), torch.bool),
        "labels": ((2,), torch.int64),
    }
    assert batch["labels"].tolist() == [1, 0]
    expected = to_tensor(eval_image(_picture(1), 16), processor.mean, processor.std)
    torch.testing.assert_close(batch["pixel_values"][1], expected)


def test_padding_is_to_the_longest_text_of_the_batch(processor: Processor, tokenizer: Any) -> None:
    short, long = "male", "lesion on the back"
    batch = processor(text=[short, long])
    expected = tokenizer([short, long], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 6)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert processor(text=[short])["input_ids"].shape == (1, 3)


def test_padding_to_a_multiple(processor: Processor) -> None:
    items = [processor.encode(text=text) for text in ("male", "lesion on the back")]
    batch = processor.collate(items, pad_to_multiple_of=8)
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 6]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()


def test_truncation_keeps_the_end_token(processor: Processor, tokenizer: Any) -> None:
    ids = processor.encode(text="male " * 50)["input_ids"]
    assert len(ids) == 12 and ids[-1] == tokenizer.sep_token_id


def test_missing_modalities(processor: Processor) -> None:
    batch = processor(images=[None, _picture()], text=["male", None])
    assert batch["image_present"].tolist() == [False, True]
    assert batch["text_present"].tolist() == [True, False]
    assert not batch["pixel_values"][0].any() and batch["pixel_values"][1].any()
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert batch["input_ids"][1].tolist() == [0, 0, 0]
    assert "labels" not in batch
    nothing = processor(images=[_picture()], text=["  "])
    assert nothing["input_ids"].tolist() == [[0]] and nothing["attention_mask"].tolist() == [[0]]
    assert nothing["text_present"].tolist() == [False]


def test_one_modality_makes_no_keys_of_the_other(tokenizer: Any) -> None:
    assert set(Processor(image_size=8)(images=_picture())) == {"pixel_values", "image_present"}
    keys = {"input_ids", "attention_mask", "text_present"}
    assert set(Processor(tokenizer=tokenizer)(text="male")) == keys


def test_text_of_a_row(processor: Processor) -> None:
    row = {"age": 55.0, "sex": "unknown", "localization": "back", "text": "Itches."}
    assert processor.text_of(row) == "55-year-old, lesion on the back. Itches."
    assert processor.text_of({"text": "Itches."}) == "Itches."
    assert processor.text_of({"age": float("nan"), "text": None}) is None
    assert Processor().text_of({"age": 55}) is None


def test_encode_row(processor: Processor, tmp_path: Path) -> None:
    _picture().save(tmp_path / "a.png")
    item = processor.encode_row({"image": tmp_path / "a.png", "sex": "male", "label": "nv"})
    assert (item["labels"], item["image_present"], item["text_present"]) == (1, True, True)
    assert item["input_ids"] == processor.encode(text="male")["input_ids"]
    torch.testing.assert_close(item["pixel_values"], processor.encode(image=_picture())["pixel_values"])
    with pytest.raises(ValueError, match="Unknown label 'bcc'; known: mel, nv"):
        processor.encode_row({"label": "bcc"})


def test_augmentation_is_asked_for_by_name_and_generator(processor: Processor) -> None:
    plain = processor.encode(image=_picture())["pixel_values"]
    first = processor.encode(image=_picture(), augment="report", rng=row_rng(0, 0, "a"))["pixel_values"]
    again = processor.encode(image=_picture(), augment="report", rng=row_rng(0, 0, "a"))["pixel_values"]
    assert torch.equal(first, again) and not torch.equal(first, plain)
    for kwargs in ({"augment": "report"}, {"augment": "zebra", "rng": row_rng(0, 0, "a")}):
        with pytest.raises(ValueError, match="known: basic, dermoscopy, mri, report"):
            processor.encode(image=_picture(), **kwargs)


def test_corners_uncovered_by_a_rotation_are_near_zero(processor: Processor) -> None:
    white = Image.new("RGB", (64, 64), (255, 255, 254))  # an image of one gray value is blank
    corner_values = []
    for epoch in range(20):
        pixels = processor.encode(image=white, augment="report", rng=row_rng(0, epoch, "a"))["pixel_values"]
        corner_values += [pixels[:, y, x].abs().max().item() for y in (0, -1) for x in (0, -1)]
    # white is above 2 in every channel; the mean color rounds to within half a gray level of 0
    assert min(corner_values) < 0.5 / 255 / 0.224


def test_call_refuses_uneven_input(processor: Processor) -> None:
    for kwargs in ({}, {"images": []}, {"images": [_picture()], "text": ["a", "b"]}):
        with pytest.raises(ValueError, match="one length above 0"):
            processor(**kwargs)


def test_saved_and_loaded(processor: Processor, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "mibf_lite0", "processor": {"old": 1}}')
    processor(text=["male"])  # calls leave truncation enabled in the tokenizer
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "mibf_lite0"
    assert config["processor"] == {**processor.to_dict(), "tokenizer": True}
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "files.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]

    loaded = Processor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    ours = processor(images=[_picture(), None], text=TEXTS, labels=["nv", "mel"])
    theirs = loaded(images=[_picture(), None], text=TEXTS, labels=["nv", "mel"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_an_image_processor_needs_no_tokenizer_file(tmp_path: Path) -> None:
    processor = Processor(
        labels=["a"], image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_pct=0.9
    )
    processor.save_pretrained(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.json", "files.json"]
    assert Processor.from_pretrained(tmp_path / "new").to_dict() == processor.to_dict()


def test_loading_is_strict(processor: Processor, tmp_path: Path) -> None:
    def load(message: str, error: type[Exception] = ValueError) -> None:
        with pytest.raises(error, match=message) as caught:
            Processor.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)

    load("config.json does not exist", FileNotFoundError)
    path = tmp_path / "config.json"
    for content, message in (("{", "is not JSON"), ("[]", "contains a JSON list"), ("{}", "has no processor settings")):
        path.write_text(content)
        load(message)
    processor.save_pretrained(tmp_path)
    (tmp_path / "files.json").unlink()  # as an earlier version wrote it
    good = json.loads(path.read_text())

    def settings(**changes: Any) -> None:
        values = {key: value for key, value in {**good["processor"], **changes}.items() if value != "DROP"}
        path.write_text(json.dumps({**good, "processor": values}))

    settings(colour="red")
    load(r"unknown \['colour'\], missing none")
    settings(std="DROP")
    load(r"unknown none, missing \['std'\]")
    settings(std=[0, 1, 1])
    load("std above 0")
    settings(mean=3)
    load("not iterable")
    settings(crop_pct="wide")
    load("Processor settings")
    settings()
    tokenizer_file = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer_file[: len(tokenizer_file) // 2])
    load("the tokenizer cannot be read")
    (tmp_path / "tokenizer.json").unlink()
    load("tokenizer.json does not exist", FileNotFoundError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["a", "a"]}, "must be unique"),
        ({"image_size": 0}, "at least 1"),
        ({"mean": (0.5,)}, "three values"),
        ({"std": (0, 1, 1)}, "std above 0"),
        ({"interpolation": "area"}, "Unknown interpolation 'area'"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"max_length": 2}, "max_length"),
        ({"text_template": "{age"}, "unpaired brace"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Processor(**settings)


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_a_border_shows_the_whole_image(size: tuple[int, int]) -> None:
    """Half of the input is the image, resized once, and the rest is zero; a region keeps its place."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    told = {"image_size": 40, "mean": (0.2, 0.4, 0.6), "std": (0.2, 0.2, 0.2), "crop_mode": "border"}
    item = Processor(**told).encode(picture, roi=(5, 5, 15, 15))
    pixels = item["pixel_values"]
    expected = (np.asarray(picture, dtype=np.float32) / 255 - np.float32([0.2, 0.4, 0.6])) / np.float32(0.2)
    inside = pixels[:, 10:30] if size[0] > size[1] else pixels[:, :, 10:30]
    np.testing.assert_allclose(inside.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    border = pixels[:, :10] if size[0] > size[1] else pixels[:, :, :10]
    assert border.abs().max() < 0.01  # the mean color, rounded to 8 bits
    plain = Processor(**{**told, "crop_mode": "center"}).encode(picture, roi=(5, 5, 15, 15))
    torch.testing.assert_close(item["roi_values"], plain["roi_values"])
    drawn = Processor(**told).encode(picture, augment="basic", rng=random.Random(0))["pixel_values"]
    near = (drawn.abs() < 0.5).all(dim=0).float().mean()
    assert drawn.shape == (3, 40, 40) and near > 0.2, "the border is there in training too"
    cropped = Processor(**told, crop_pct=0.5)  # such as the backbone's, of a model that is trained further
    assert cropped.crop_pct == 1
    torch.testing.assert_close(cropped.encode(picture)["pixel_values"], pixels)
    with pytest.raises(ValueError, match="crop_mode='squash' is not one of 'center', 'border'"):
        Processor(crop_mode="squash")
