"""Slices: the 2.5D stem, studies of different lengths, and absent slices."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import mmfusion
from mmfusion.data import neighbour_slices
from mmfusion.towers import SlicesTower, several
from mmfusion.towers.slices import Stem25D, neighbours

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Normalize (..., 3, H, W) from 0-1 like the processor."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("mode", ["replicate", "mirror"])
def test_neighbours_are_those_of_the_present_slices(mode):
    for count in range(1, 6):
        for bits in itertools.product([False, True], repeat=count):
            places = [i for i in range(count) if bits[i]]
            before, after = neighbours(torch.tensor([bits]), mode)
            for rank, i in enumerate(places):
                first, _, last = neighbour_slices(rank, len(places), mode)
                assert (before[0, i], after[0, i]) == (places[first], places[last])
            assert int(before.min()) >= 0 and int(after.max()) < count


def test_stem_stacks_the_luminance_of_neighbours_as_channels():
    torch.manual_seed(0)
    colour = torch.rand(2, 3, 3, 5, 4)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    stem = Stem25D(MEAN, STD)
    grey = (colour * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(2)
    stacked = stem(normalised(colour), mask)
    order = [(0, 0, (0, 0, 1)), (0, 1, (0, 1, 2)), (0, 2, (1, 2, 2)), (1, 0, (0, 0, 2)), (1, 2, (0, 2, 2))]
    for row, i, slices in order:
        assert_close(stacked[row, i], normalised(grey[row, list(slices)]), rtol=1e-4, atol=1e-5)
    # in a gray image, each channel is that of the neighbor
    monochrome = normalised(grey.unsqueeze(2).expand(-1, -1, 3, -1, -1))
    own = torch.stack([monochrome[0, i, c] for c, i in enumerate((0, 1, 2))])
    assert_close(stem(monochrome, mask)[0, 1], own, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tower() -> SlicesTower:
    torch.manual_seed(0)
    return SlicesTower("test_resnet", aggregator="attention", aggregator_args={"hidden_size": 8}).eval()


def test_mean_of_slices_is_the_mean_of_the_backbone():
    torch.manual_seed(0)
    tower = SlicesTower("test_resnet").eval()
    images, mask = torch.randn(2, 3, 3, 32, 32), torch.tensor([[True, True, True], [True, False, True]])
    features = tower(images, mask)
    vectors = [tower.backbone.model(images[i]) for i in range(2)]
    expected = torch.stack([vectors[0].mean(0), vectors[1][[0, 2]].mean(0)])
    assert_close(features.pooled, expected, rtol=1e-4, atol=1e-5)
    assert features.tokens.shape == (2, 3, tower.num_features) and torch.equal(features.mask, mask)


def test_a_single_image_is_a_study_of_one(tower):
    images = torch.randn(2, 3, 32, 32)
    assert_close(tower(images).pooled, tower(images[:, None]).pooled)
    assert_close(tower(images).attentions["slices"], torch.ones(2, 1, 1, 1))


def test_absent_slices_enter_no_batch_norm_statistics():
    torch.manual_seed(0)
    tower = SlicesTower("test_resnet").train()
    twin = copy.deepcopy(tower)
    images, mask = torch.randn(2, 3, 3, 32, 32), torch.tensor([[True, True, False], [True, False, True]])
    tower(images.masked_fill(~mask[..., None, None, None], 9.0), mask)
    twin.backbone(images[mask])
    for name, value in tower.named_buffers():
        assert torch.equal(value, dict(twin.named_buffers())[name]), name


def test_long_studies_run_in_chunks_without_gradients(tower, monkeypatch):
    images = torch.randn(2, 5, 3, 32, 32)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 1:3] = False
    expected = tower(images, mask).pooled.detach()
    sizes = []
    handle = tower.backbone.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    monkeypatch.setattr(several, "CHUNK", 3)
    with torch.no_grad():
        assert_close(tower(images, mask).pooled, expected, rtol=1e-4, atol=1e-5)
    handle.remove()
    assert sizes == [3, 3, 2]


def test_a_stem_and_an_aggregator_are_keywords_of_the_model(tmp_path):
    tiny = {"image_encoder": "test_resnet", "text_encoder": None, "num_classes": 3}
    model = mmfusion.create_model("bilstm_lite0", **tiny, stem="2.5d", aggregator_args={"hidden_size": 4})
    assert isinstance(model.image_tower.stem, Stem25D) and model.num_features == 8
    swapped = mmfusion.create_model("bilstm_lite0", **tiny, aggregator="mean")
    assert swapped.config["aggregator_args"] is None and swapped.config["aggregator"] == "mean"
    mirrored = mmfusion.create_model("stem25d_lite0", **tiny, image_args={"stem_mode": "mirror"})
    assert mirrored.image_tower.stem.mode == "mirror"
    plain = mmfusion.create_model("bilstm_lite0", **tiny, image_tower="single")
    assert plain.config["aggregator"] is None and plain.image_layout == "image" and model.image_layout == "slices"
    text = mmfusion.create_model("bilstm_lite0", image_encoder=None, text_args={"vocab_size": 64})
    assert text.config["image_tower"] == "single" and text.image_tower is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mmfusion.create_model("test_image", aggregator="mean"), TypeError, "'single' takes no aggregator"),
        (lambda: mmfusion.create_model("test_image", stem="2.5d"), TypeError, "'single' takes no stem"),
        (lambda: mmfusion.create_model("bilstm_lite0", stem="3d"), ValueError, "stem='3d'"),
        (lambda: mmfusion.create_model("bilstm_lite0", aggregator="lstm"), ValueError, "did you mean 'bilstm'"),
        (lambda: mmfusion.create_model("bilstm_lite0", aggregator_args={"width": 3}), TypeError, "aggregator 'bilstm'"),
        (lambda: mmfusion.create_model("bilstm_lite0", fusion="hier_interact"), ValueError, "'slices' has no levels"),
        (lambda: mmfusion.create_model("test_text", stem="2.5d"), ValueError, "there is none"),
        (lambda: SlicesTower("test_resnet")(torch.zeros(3, 32, 32)), ValueError, "takes pixel_values"),
        (lambda: SlicesTower("test_resnet")(torch.zeros(1, 2, 3, 32, 32), torch.ones(1, 3)), ValueError, "a mask of"),
        (lambda: mmfusion.create_model("test_image")(torch.zeros(1, 2, 3, 32, 32)), ValueError, "'single' takes"),
    ],
)
def test_what_does_not_go_together_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_batch_norm_measures_all_images_of_a_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients, images run in chunks unless BatchNorm computes statistics; the last chunk may be one image."""
    monkeypatch.setattr(several, "CHUNK", 4)
    norm = nn.BatchNorm2d(3, momentum=None)
    images, mask = torch.randn(3, 3, 3, 2, 2), torch.ones(3, 3, dtype=torch.bool)
    with torch.no_grad():
        several.each_present(lambda x: (norm(x),), images, mask, norm)
    assert int(norm.num_batches_tracked) == 1
    torch.testing.assert_close(norm.running_var, images.transpose(0, 2).flatten(1).var(dim=1))
    calls = []
    with torch.no_grad():
        several.each_present(lambda x: (calls.append(len(x)) or norm(x),), images, mask, norm.eval())
    assert calls == [4, 4, 1]
