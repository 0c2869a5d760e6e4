"""Mixed images: pixels and shares by hand, random draws, and the loss of a step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import assert_same_run

from mmfusion.training import RunConfig, checkpoints, train
from mmfusion.training.mixing import Mixing

MakeConfig = Callable[..., RunConfig]


def batch(rows: int = 5, **further: Any) -> dict[str, Any]:
    pixels = torch.arange(rows, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return {"pixel_values": pixels, **further}


def test_mixup_is_the_weighted_mean_of_two() -> None:
    inputs = batch(image_present=torch.tensor([True, False, True, True, False]))
    mixed = Mixing(mixup=1.0, cutmix=None, seed=0)(inputs, step=0)
    assert mixed.partner.tolist() == [3, 1, 2, 0, 4]  # reversed among the present ones
    expected = mixed.share * torch.arange(5) + (1 - mixed.share) * mixed.partner
    torch.testing.assert_close(mixed.pixel_values.mean((1, 2, 3)), expected)
    assert 0 < mixed.share < 1 and torch.equal(inputs["pixel_values"], batch()["pixel_values"])


def test_cutmix_counts_its_pixels() -> None:
    shares = []
    for step in range(20):
        mixed = Mixing(mixup=None, cutmix=1.0, seed=0)(batch(4), step)
        own = mixed.pixel_values == torch.arange(4.0).view(-1, 1, 1, 1)
        assert own.double().mean((1, 2, 3)).tolist() == pytest.approx([mixed.share] * 4)
        assert (own | (mixed.pixel_values == mixed.partner.view(-1, 1, 1, 1))).all()
        box = (~own[0, 0]).nonzero()
        assert box.numel() == 0 or (box.amax(0) - box.amin(0) + 1).prod() == len(box)
        shares.append(mixed.share)
    assert min(shares) < 0.5 and max(shares) > 0.8


def test_seed_and_step_decide() -> None:
    def drawn(seed: int = 0, step: int = 0) -> float:
        return Mixing(0.4, None, seed)(batch(), step).share

    assert drawn() == drawn() and len({drawn(), drawn(seed=1), drawn(step=1)}) == 3
    both = [Mixing(1.0, 1.0, 0)(batch(), step).pixel_values for step in range(30)]
    whole = sum(bool((x == x.round()).all()) for x in both)
    assert 5 < whole < 25  # CutMix keeps values as they are


@pytest.mark.parametrize(
    "further", [{"roi_values": torch.zeros(5, 3, 4, 4)}, {"pixel_values": torch.zeros(5, 2, 3, 8, 8)}]
)
def test_other_pictures_are_refused(further: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"train.mixup and train.cutmix need single images"):
        Mixing(0.2, None, 0)({**batch(), **further}, 0)


@pytest.mark.parametrize("loss", ["ce", "focal", "logit_adjusted", "mp"])
def test_the_loss_is_mixed_as_the_pictures_are(make_config: MakeConfig, loss: str, monkeypatch: Any) -> None:
    """The loss of the first step, compared with the loss on the mixed images."""
    from mmfusion.training.trainer import FusionTrainer

    seen: list[tuple[float, float]] = []
    whole = FusionTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        value = whole(self, model, inputs, *args, **kwargs)
        if not seen:
            mixed = self.mixing(inputs, 0)
            output, labels = model(**{**inputs, "pixel_values": mixed.pixel_values}), inputs["labels"]
            terms = []
            for each in (labels, labels[mixed.partner]):
                if hasattr(self.pair.loss, "step"):
                    self.pair.loss.step = 0
                terms.append(self.pair.loss(output, each)["loss"].item())
            seen.append((value.item(), mixed.share * terms[0] + (1 - mixed.share) * terms[1]))
        return value

    monkeypatch.setattr(FusionTrainer, "compute_loss", compute_loss)
    train(make_config(f"run_{loss}", model="plain", loss=loss, mixup=0.5, epochs=1, precision="fp32"))
    assert seen[0][0] == pytest.approx(seen[0][1], rel=1e-5)


def test_a_killed_run_goes_on_with_all_of_it(make_config: MakeConfig) -> None:
    """Mixed images of growing size, encoders frozen at first, a moving average, and layer-wise learning rates."""
    options: dict[str, Any] = {"mixup": 0.4, "cutmix": 1.0, "image_sizes": [16, 32], "head_epochs": 1, "ema": 0.9}
    options |= {"layer_decay": 0.7, "freeze_stages": 1, "save_steps": 4}
    whole, killed = make_config("whole", **options), make_config("killed", **options, resume=True)
    train(whole)
    shutil.copytree(whole.output, killed.output)
    states = Path(killed.output) / "checkpoints"
    shutil.rmtree(checkpoints.states(states)[-1])
    shutil.rmtree(Path(killed.output) / "last")
    train(killed)
    assert_same_run(killed.output, whole.output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 0}, "train.mixup must be above 0, or null; got 0"),
        ({"cutmix": -1.0}, "train.cutmix must be above 0, or null; got -1.0"),
        ({"image_sizes": [16, 24]}, r"train.image_sizes must end with processor.image_size, 32; got \[16, 24\]"),
        ({"image_sizes": [0, 32]}, "train.image_sizes must be sizes of at least 1 pixel"),
        ({"layer_decay": 1.5}, "train.layer_decay must be above 0 and at most 1; got 1.5"),
        ({"head_epochs": 2}, "train.head_epochs must be at least 0 and below train.epochs; got 2"),
        ({"ema": 1.0}, "train.ema must be above 0 and below 1, or null; got 1.0"),
        ({"freeze_stages": -1}, "train.freeze_stages must be at least 0, or null; got -1"),
        ({"freeze_stages": 1, "freeze_encoders": True}, "train.freeze_stages must be null with train.freeze_encoders"),
        ({"freeze_stages": 9}, "9 stages cannot be frozen: ResNet has 4 stages"),
    ],
)
def test_settings_that_do_not_fit(make_config: MakeConfig, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(make_config(**options))
