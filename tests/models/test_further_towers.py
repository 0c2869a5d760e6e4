"""Custom towers for a further modality on either side, and errors for incomplete parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from zoo import batch

import mmfusion
from mmfusion import registry
from mmfusion.data import Processor
from mmfusion.evaluation import modality_sensitivity
from mmfusion.exporting.inputs import free_sizes, input_names
from mmfusion.models import save_model
from mmfusion.outputs import Features, Fused, FusionOutput
from mmfusion.towers import Tower
from mmfusion.training import ModelConfig, RunConfig, TrainConfig, train

TINY: dict[str, Any] = {"num_classes": 3, "image_encoder": "test_resnet", "text_args": {"vocab_size": 128}, "dim": 32}
LABS = {"towers": {"lab_values": {"width": 5}}}


class LabValues(Tower):
    """A vector of lab values with one layer."""

    def __init__(self, width: int, dim: int = 16) -> None:
        super().__init__()
        self.norm, self.proj = nn.BatchNorm1d(width), nn.Linear(width, dim)
        self.num_features = dim

    def encode(self, lab_values: Tensor) -> dict[str, Tensor]:
        return {"pooled": self.proj(self.norm(lab_values)).relu()}


@pytest.fixture(autouse=True)
def parts() -> Iterator[Callable[[str, str, type], None]]:
    """Register parts for one test."""
    added: list[tuple[str, str]] = []

    def add(kind: str, name: str, part: type) -> None:
        registry.register(kind, name)(part)
        added.append((kind, name))

    add("tower", "lab_values", LabValues)
    yield add
    for kind, name in added:
        registry.unregister(kind, name)


def every_input(model: mmfusion.FusionModel, rows: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return batch(model, rows=rows) | {"lab_values": torch.randn(rows, 5)}


def with_labs(name: str = "mibf_lite0", **parts: Any) -> mmfusion.FusionModel:
    torch.manual_seed(0)
    model = mmfusion.create_model(name, **{**TINY, **LABS, **parts})
    return model


def test_each_modality_is_exchanged_alone() -> None:
    model = with_labs()
    found = modality_sensitivity(model, [every_input(model)])
    assert list(found) == ["image", "text", "lab_values"] and all(value > 0 for value in found.values())


def test_a_fourth_modality_is_trained_saved_and_loaded_bit_equal(tmp_path: Path) -> None:
    model = with_labs().train()
    assert model.config["towers"] == {"lab_values": {"width": 5}} and list(model.towers) == [
        "image",
        "text",
        "lab_values",
    ]
    assert model.fusion.image_proj.in_features == model.image_tower.num_features
    assert model.sides.widths[1].num_features == model.text_tower.num_features, "text and lab values, as wide as text"
    optimizer = torch.optim.AdamW(model.param_groups(lr=1e-3))
    output = model(**every_input(model), lab_values_present=torch.tensor([True, False, True, True]))
    sum(x.square().sum() for x in (output.logits, output.image_logits, output.text_logits)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    changed = {name.split(".")[0] for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert changed >= {"lab_values_tower", "lab_values_missing", "sides", "fusion", "head"}

    save_model(model.eval(), tmp_path / "m")
    again = mmfusion.create_model(f"local-dir:{tmp_path / 'm'}")
    inputs = every_input(model)
    assert again.config == model.config and torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert input_names(model) == [
        *("pixel_values", "image_present", "input_ids", "attention_mask", "text_present"),
        *("lab_values", "lab_values_present"),
    ]
    assert list(free_sizes(model)["lab_values"]) == [0], "the number of samples is free"


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("test_text", {"dim": None, "image_encoder": None}),
        ("mibf_lite0", {"text_encoder": None, "text_args": {}}),
        ("test_image", {"image_encoder": None, "dim": None, "text_args": {}}),
        ("cross_attention_resnet18", {}),
        ("hier_lite0", {}),
    ],
)
def test_any_combination_of_modalities(name: str, overrides: dict[str, Any]) -> None:
    model = with_labs(name, **overrides).eval()
    inputs = every_input(model)
    assert model(**inputs).logits.shape == (4, 3)
    assert (model.fusion is None) == (model.image_tower is None)
    order = torch.tensor([2, 0, 3, 1])
    assert_close(model(**{k: v[order] for k, v in inputs.items()}).logits, model(**inputs).logits[order])
    # the values at the place of a missing vector do not matter, but its absence does
    gone = torch.tensor([True, False, True, False])
    before = model(**inputs, lab_values_present=gone).logits
    other = inputs | {"lab_values": torch.where(gone[:, None], inputs["lab_values"], torch.full((4, 5), 9.0))}
    assert_close(model(**other, lab_values_present=gone).logits, before)
    full = model(**inputs).logits
    assert_close(before[gone], full[gone]) and not torch.allclose(before[~gone], full[~gone])
    if len(model.towers) > 1:
        left_out = {k: v for k, v in inputs.items() if k != "lab_values"}
        assert_close(model(**left_out).logits, model(**inputs, lab_values_present=gone & ~gone).logits)


def test_absent_rows_do_not_enter_the_statistics_of_a_further_tower() -> None:
    model = with_labs().train()
    inputs, present = every_input(model), torch.tensor([True, False, True, True])
    inputs["lab_values"][1] = float("nan")
    model(**inputs, lab_values_present=present).logits.sum().backward()
    assert_close(model.lab_values_tower.norm.running_mean, 0.1 * inputs["lab_values"][present].mean(0))
    assert all(p.grad.isfinite().all() for p in model.lab_values_tower.parameters())


def test_modality_dropout_hides_one_of_three() -> None:
    model = with_labs("mibf_lite0", modality_dropout=0.5)
    seen: dict[str, Tensor] = {}
    for modality in model.towers:
        module = getattr(model, f"{modality}_missing")
        module.register_forward_hook(lambda m, args, out, name=modality: seen.__setitem__(name, args[1]))
    model.eval().training = True
    inputs = every_input(model, rows=60)
    inputs["attention_mask"][:] = 1
    model(**inputs)
    here = torch.stack([seen[m] for m in model.towers], dim=1)
    assert set(here.sum(dim=1).tolist()) == {2, 3} and 18 <= int((here.sum(dim=1) == 2).sum()) <= 42
    assert ((~here).sum(dim=0) >= 3).all(), "each of them goes"


def test_frozen_towers_and_groups() -> None:
    model = with_labs()
    model.freeze_encoders(image=False, text=False)
    assert not any(p.requires_grad for p in model.lab_values_tower.parameters())
    model.train()
    assert not model.lab_values_tower.norm.training and model.image_tower.training
    assert next(model.image_tower.parameters()).requires_grad
    names = [group["name"] for group in with_labs().param_groups(lr=1.0)]
    assert names == ["encoders_decay", "encoders_no_decay", "rest_decay", "rest_no_decay"]
    with pytest.raises(TypeError, match="did you mean 'lab_values'"):
        model.freeze_encoders(lab_value=True)


def test_inputs_that_no_tower_reads_are_refused() -> None:
    model = mmfusion.create_model("test_image").eval()
    pixels = torch.zeros(1, 3, 48, 48)
    expected = model(pixels).logits
    assert torch.equal(model(pixels, torch.ones(1, 2, dtype=torch.long), slice_mask=None).logits, expected)
    with pytest.raises(TypeError, match="No tower of the model reads the input 'pixel_value'; did you mean 'pixel_val"):
        model(pixel_value=pixels)
    with pytest.raises(TypeError, match="did you mean 'lab_values_present'"):
        with_labs().eval()(pixels, lab_value_present=torch.ones(1, dtype=torch.bool))
    with pytest.warns(UserWarning, match="LabValues has no gradient checkpointing"):
        with_labs().set_grad_checkpointing()


# -- parts of one's own -------------------------------------------------------------------------------------------


class MyImage(nn.Module):
    """A minimal image tower."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.conv, self.num_features = nn.Conv2d(3, 8, 3), 8

    def forward(self, x: Tensor) -> Features:
        return Features(pooled=self.conv(x).mean(dim=(2, 3)))


class Narrow(MyImage):
    def __init__(self, encoder: str) -> None:
        super().__init__(encoder)
        self.num_features = 12


class Unsized(MyImage):
    def __init__(self, encoder: str) -> None:
        super().__init__(encoder)
        del self.num_features


class Silent(nn.Module):
    num_features = 8

    def __init__(self, encoder: str) -> None:
        super().__init__()


class Bare(MyImage):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(x).mean(dim=(2, 3))


class MyFusion(nn.Module):
    def __init__(self, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()
        self.image, self.text, self.num_features = nn.Linear(image_dim, dim), nn.Linear(text_dim, dim), dim

    def forward(self, image: Features, text: Features) -> Fused:
        return Fused(pooled=self.image(image.pooled) + self.text(text.pooled))


class WideFusion(MyFusion):
    def __init__(self, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__(image_dim, text_dim, dim)
        self.num_features = 2 * dim


class ProjectedFusion(MyFusion):
    """Returns its projected sides without declaring their width."""

    def forward(self, image: Features, text: Features) -> Fused:
        v, t = self.image(image.pooled), self.text(text.pooled)
        return Fused(pooled=v + t, image=v, text=t)


class ListFusion(MyFusion):
    def forward(self, image: Features, text: Features) -> list[Tensor]:  # type: ignore[override]
        return [image.pooled, text.pooled]


class SilentFusion(nn.Module):
    def __init__(self, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()


class MyHead(nn.Module):
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, num_classes)

    def forward(self, fused: Fused) -> FusionOutput:
        return FusionOutput(logits=self.fc(fused.pooled))


class BareHead(MyHead):
    def forward(self, fused: Fused) -> Tensor:  # type: ignore[override]
        return self.fc(fused.pooled)


class TwoHead(MyHead):
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, 2)


def test_parts_with_the_least_work(parts: Any, tmp_path: Path) -> None:
    for kind, part in (("image_tower", MyImage), ("fusion", MyFusion), ("head", MyHead)):
        parts(kind, "mine", part)
    model = mmfusion.create_model("test_concat", image_tower="mine", fusion="mine", head="mine", num_classes=3)
    inputs = {"pixel_values": torch.randn(4, 3, 48, 48), "input_ids": torch.randint(5, 128, (4, 6))}
    model.train()(**inputs, image_present=torch.tensor([True, True, False, True])).logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.pretrained_cfg == {"architecture": "test_concat", "num_classes": 3} and model.image_layout == "image"
    model.freeze_encoders()
    assert not any(p.requires_grad for p in model.image_tower.parameters())
    save_model(model.eval(), tmp_path / "m")
    again = mmfusion.create_model(f"local-dir:{tmp_path / 'm'}")
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("kind", "part", "error", "words"),
    [
        ("image_tower", Unsized, TypeError, r"image_tower 'mine' \(Unsized\) has no num_features"),
        ("image_tower", Silent, TypeError, r"image_tower 'mine' \(Silent\) has no forward"),
        ("fusion", SilentFusion, TypeError, r"fusion 'mine' \(SilentFusion\) has no forward"),
        ("head", Fused, TypeError, r"head 'mine': missing a required argument: 'pooled'"),
        ("fusion", nn.Linear, TypeError, r"fusion 'mine': missing a required argument: 'in_features'"),
    ],
)
def test_a_part_that_lacks_something_is_refused_when_it_is_made(
    parts: Any, kind: str, part: type, error: type[Exception], words: str
) -> None:
    parts(kind, "mine", part)
    with pytest.raises(error, match=words) as caught:
        mmfusion.create_model("test_concat", **{kind: "mine"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "part", "error", "words"),
    [
        (
            "image_tower",
            Narrow,
            ValueError,
            r"\(Narrow\) returned pooled of width 8 and declares 12; set self.num_feat",
        ),
        ("image_tower", Bare, TypeError, r"\(Bare\) returned Tensor; forward has to return Features"),
        ("fusion", WideFusion, ValueError, r"'mine' \(WideFusion\) returned pooled of width 32 and declares 64"),
        ("fusion", ListFusion, TypeError, r"'mine' \(ListFusion\) returned list; forward has to return Fused"),
        ("head", BareHead, TypeError, r"'mine' \(BareHead\) returned Tensor; forward has to return FusionOutput"),
        ("head", TwoHead, ValueError, r"'mine' \(TwoHead\) returned logits of width 2 and declares 3"),
    ],
)
def test_a_part_that_does_not_keep_its_word_is_named(
    parts: Any, kind: str, part: type, error: type[Exception], words: str
) -> None:
    parts(kind, "mine", part)
    model = mmfusion.create_model("test_concat", num_classes=3, **{kind: "mine"})
    with pytest.raises(error, match=words) as caught:
        model(torch.randn(2, 3, 48, 48), torch.randint(5, 128, (2, 6)))
    assert "\n" not in str(caught.value)


def test_widths_of_the_sides_matter_to_auxiliary_heads_alone(parts: Any) -> None:
    parts("fusion", "mine", ProjectedFusion)
    inputs = torch.randn(2, 3, 48, 48), torch.randint(5, 128, (2, 6))
    plain = mmfusion.create_model("test_concat", num_classes=3, fusion="mine", dim=20)
    assert plain(*inputs).logits.shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"'mine' \(ProjectedFusion\) returned image of width 20 .* set self.side_dims"
    ):
        mmfusion.create_model("test_concat", num_classes=3, fusion="mine", dim=20, aux_heads=True)(*inputs)


def test_a_tower_that_names_no_input_size_trains_at_timms(parts: Any, toy: Path, tmp_path: Path) -> None:
    parts("image_tower", "mine", MyImage)
    model, settings = ModelConfig(name="test_concat", image_tower="mine"), TrainConfig(epochs=1, batch_size=8)
    train(RunConfig(data=str(toy), output=str(tmp_path), model=model, train=settings))
    assert Processor.from_pretrained(tmp_path / "best").image_size == 224


def test_a_tower_that_lacks_something_is_refused(parts: Any) -> None:
    class NoInputs(Tower):
        num_features = 4

    parts("tower", "no_inputs", NoInputs)
    with pytest.raises(TypeError, match=r"tower 'no_inputs' \(NoInputs\) has no encode and no forward"):
        with_labs(towers={"no_inputs": {}})
    with pytest.raises(TypeError, match="tower 'lab_values': missing a required argument: 'width'"):
        with_labs(towers={"lab_values": {}})
    with pytest.raises(ValueError, match="Unknown tower 'lab_value'; did you mean 'lab_values'"):
        with_labs(towers={"lab_value": {}})
    with pytest.raises(TypeError, match="Features need pooled"):
        Features(tokens=torch.zeros(1, 2, 3))


# -- what timm and torch expect -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_new_classifier_keeps_mode_device_and_type(training: bool) -> None:
    model = mmfusion.create_model("test_mibf").to("meta", torch.bfloat16).train(training)
    model.reset_classifier(4)
    assert {(str(p.device), p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert {module.training for module in model.modules()} == {training}
    model.reset_classifier(0)
    model.reset_classifier(2, None)
    assert model.head.fc.weight.dtype == torch.bfloat16 and model.num_classes == 2
    with pytest.raises(TypeError, match="global_pool='avg'"):
        model.reset_classifier(2, "avg")


def test_timm_s_optimizer_does_not_decay_the_dynamics() -> None:
    from timm.optim import create_optimizer_v2

    model = mmfusion.create_model("test_concat", fusion="ssm")
    kept = {"fusion.encoder.blocks.0.ssm.A_log", "fusion.encoder.blocks.0.ssm.reverse.A_log"}
    assert {name for name in model.no_weight_decay() if not name.endswith(".D")} == kept
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    undecayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in undecayed and p.ndim > 1} == kept


@pytest.mark.parametrize("name", ["test_mibf", "test_attention"])
def test_plain_ddp_trains_with_default_arguments(name: str, tmp_path: Path) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = mmfusion.create_model(name, num_classes=3).train()
        wrapped = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            output = wrapped(torch.randn(2, 3, 48, 48), torch.randint(5, 128, (2, 6)))
            found = [x for x in (output.logits, output.image_logits, output.text_logits) if x is not None]
            sum(x.square().sum() for x in found).backward()
        assert not model.image_missing.token.grad.any(), "it counts nothing where every sample has its image"
    finally:
        distributed.destroy_process_group()
