from __future__ import annotations

import torch
from torch import nn

from mmfusion.inference.tta import VIEWS, centre_crop, mean_log_probabilities, views_of
from mmfusion.outputs import FusionOutput


class Weighted(nn.Module):
    """Logits from a fixed weighting of the pixels, which differ between views."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pixel_values=None, input_ids=None) -> FusionOutput:
        self.calls += 1
        if pixel_values is None:
            return FusionOutput(logits=input_ids.float())
        weight = torch.arange(64.0).view(8, 8) / 64
        score = (pixel_values * weight).flatten(1).mean(1)
        return FusionOutput(logits=torch.stack([score, -score, score * 0], 1))


def probabilities(model, batch):
    return mean_log_probabilities([model(**view).logits for view in views_of(batch)]).exp()


def test_mean_of_softmax_over_the_views():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    got = probabilities(Weighted(), {"pixel_values": images})
    views = [images, images.flip(3), images.flip(2), images.transpose(2, 3).flip(2), centre_crop(images)]
    expected = sum(Weighted()(view).logits.softmax(-1) for view in views) / 5
    assert len(VIEWS) == 5
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got.sum(1), torch.ones(2))


def test_slices_are_viewed_one_by_one():
    images = torch.randn(2, 4, 3, 8, 8)
    for view in VIEWS.values():
        torch.testing.assert_close(view(images)[1, 2], view(images[1, 2]))


def test_centre_crop_of_a_ramp_keeps_its_centre():
    ramp = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    cropped = centre_crop(ramp)
    assert cropped.shape == ramp.shape
    torch.testing.assert_close(cropped.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        cropped[0, 0, 0, 8] - cropped[0, 0, 0, 7], (ramp[0, 0, 0, 8] - ramp[0, 0, 0, 7]) * 14 / 16
    )


def test_text_alone_is_passed_once():
    model, batch = Weighted(), {"input_ids": torch.tensor([[1, 2, 3]]), "pixel_values": None}
    torch.testing.assert_close(probabilities(model, batch), Weighted()(**batch).logits.softmax(-1))
    assert model.calls == 1
