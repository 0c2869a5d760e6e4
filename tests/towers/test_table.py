"""Table towers: exact numbers, missing cells, unseen values, and every combination of modalities."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close
from zoo import COLUMNS, batch

import mmfusion
from mmfusion import registry
from mmfusion.models import save_model

TOWERS = mmfusion.list_components("table_tower")
EMBEDDINGS = ("linear", "periodic", "piecewise_linear")
NAN = float("nan")
TINY: dict[str, Any] = {"num_classes": 3, "image_encoder": "test_resnet", "dim": 32, "table_args": COLUMNS}
#: modalities -> architecture and overrides.
COMBINATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "image+table": ("mibf_lite0", {"text_encoder": None}),
    "image+text+table": ("mibf_lite0", {"text_args": {"vocab_size": 128}}),
    "text+table": ("mibf_lite0", {"image_encoder": None, "text_args": {"vocab_size": 128}, "dim": None}),
    "table": ("test_image", {"image_encoder": None, "dim": None}),
}


def tower(name: str, **args: Any) -> Any:
    torch.manual_seed(0)
    return registry.create("table_tower", name, **{**COLUMNS, **args}).eval()


def combined(modalities: str, table: str, **overrides: Any) -> mmfusion.FusionModel:
    torch.manual_seed(0)
    name, own = COMBINATIONS[modalities]
    return mmfusion.create_model(name, **{**TINY, **own, "table_encoder": table, **overrides})


def cases() -> list[Any]:
    """Every fusion block with image and both clinical towers, and the combinations without one."""
    blocks = mmfusion.list_components("fusion")
    fused = [(m, t, f) for f in blocks for m in ("image+table", "image+text+table") for t in TOWERS]
    return [*fused, *((m, t, None) for m in ("text+table", "table") for t in TOWERS)]


@pytest.mark.parametrize(("modalities", "table", "fusion"), cases())
def test_every_combination(modalities: str, table: str, fusion: str | None) -> None:
    several = modalities != "table"
    chosen = {} if fusion is None else {"fusion": fusion, "aux_heads": True, "aux_hidden": 8}
    model = combined(modalities, table, **chosen, modality_dropout=0.3 * several)
    assert list(model.towers) == modalities.split("+") and (model.fusion is None) == (fusion is None)
    inputs = batch(model)
    flags = {f"{m}_present": torch.arange(4) != i for i, m in enumerate(model.towers)}
    output = model.train()(**inputs, **flags)
    found = [x for x in (output.logits, output.image_logits, output.text_logits) if x is not None]
    sum(x.square().sum() for x in found).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())

    whole = model.eval()(**inputs).logits
    order = torch.tensor([2, 0, 3, 1])
    assert_close(model(**{k: v[order] for k, v in inputs.items()}).logits, whole[order], rtol=1e-4, atol=1e-5)
    # the missing cells of a row change that row alone
    other = dict(inputs, numeric_values=inputs["numeric_values"].clone(), category_ids=inputs["category_ids"].clone())
    other["numeric_values"][1] = torch.where(other["numeric_values"][1].isnan(), 0.5, NAN)
    other["category_ids"][1] = torch.where(other["category_ids"][1] == 0, 2, 0)
    changed = model(**other).logits
    assert_close(changed[[0, 2, 3]], whole[[0, 2, 3]], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(changed[1], whole[1], rtol=1e-4, atol=1e-6)
    # a row without any known cell has no columns
    other["numeric_values"][2], other["category_ids"][2] = NAN, 0
    absent = {"table_present": torch.arange(4) != 2}
    assert torch.equal(model(**other).logits[2], model(**{**inputs, **absent}).logits[2])
    if several:
        without = {k: v for k, v in inputs.items() if k not in model.table_tower.inputs}
        gone = torch.zeros(4, dtype=torch.bool)
        assert_close(model(**without).logits, model(**inputs, table_present=gone).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", COMBINATIONS)
@pytest.mark.parametrize("table", TOWERS)
def test_save_and_load_keep_the_statistics(modalities: str, table: str, tmp_path: Path) -> None:
    model = combined(modalities, table).eval()
    inputs = batch(model)
    edges = [torch.tensor([0.0, 20, 45, 60, 90]), torch.tensor([0.0, 1])]
    model.table_tower.set_statistics(torch.tensor([45.0, 0.3]), torch.tensor([18.0, 0.5]), edges)
    inputs["numeric_values"] = torch.tensor([[30.0, NAN], [NAN, 0], [80, 1], [55, 0]])
    save_model(model, tmp_path)
    again = mmfusion.create_model(f"local-dir:{tmp_path}")
    assert again.config == model.config and torch.equal(again(**inputs).logits, model(**inputs).logits)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["table_tower.numeric.standardize.mean"].tolist() == pytest.approx([45, 0.3])
    # half the size on disk, but the units of a laboratory value stay
    model.table_tower.set_statistics(torch.tensor([250_000.0, 0.3]), torch.tensor([60_000.0, 0.5]), edges)
    save_model(model, tmp_path, dtype=torch.float16)
    assert load_file(tmp_path / "model.safetensors")["table_tower.numeric.standardize.mean"][0] == 250_000


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("name", TOWERS)
def test_every_age_is_its_own(name: str, embedding: str) -> None:
    """Every integer age from 0 to 99 has different features, although training ages were 40 to 60."""
    args: dict[str, Any] = {"numeric": 1, "categories": [], "bins": [9]}
    model = tower(name, **args, embedding=embedding)
    model.set_statistics(torch.tensor([50.0]), torch.tensor([5.0]), [torch.linspace(40, 60, 9)])
    with torch.no_grad():
        if embedding == "piecewise_linear":
            model.numeric.embed.linear.weight.normal_()
        ages = model(torch.arange(100.0)[:, None]).pooled
        apart = torch.cdist(ages, ages, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(100)
        assert apart.min() > 1e-5
        far = model(torch.tensor([[1e9], [-1e9], [float("inf")], [1e38]])).pooled
        assert far.isfinite().all() and far.norm(dim=1).max() < 10 * ages.norm(dim=1).max()


def test_far_numbers_are_drawn_in() -> None:
    from mmfusion.layers.columns import drawn_in

    z = torch.tensor([-1e30, -4, -3, 0.5, 3, 4, 1e30], dtype=torch.float64, requires_grad=True)
    expected = [-(3 + torch.tensor(1e6 - 2).double().log().item()), -(3 + torch.tensor(2.0).log().item()), -3, 0.5]
    assert_close(drawn_in(z)[:4], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)
    assert drawn_in(z)[-1] < 17 and (drawn_in(z).diff() > 0).all()
    inner = torch.linspace(-20, 20, 400, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(drawn_in, inner)


def test_piecewise_linear_is_the_package_s_in_units_of_the_training_rows() -> None:
    from rtdl_num_embeddings import PiecewiseLinearEncoding

    from mmfusion.layers import NumericEmbeddings

    torch.manual_seed(0)
    layer = NumericEmbeddings(2, 8, bins=[4, 2])
    edges = [torch.tensor([10.0, 20, 50, 60]), torch.tensor([0.0, 1])]
    layer.set_statistics(torch.tensor([40.0, 0.5]), torch.tensor([20.0, 0.5]), edges)
    layer.embed.linear.weight.data.normal_()
    values = torch.tensor([[15.0, 0], [55, 1], [70, 1], [0, NAN]])
    z = (values[:, :1] - 40) / 20
    steps = PiecewiseLinearEncoding([(edges[0] - 40) / 20])(z)
    line = z * layer.embed.linear0.weight[0] + layer.embed.linear0.bias[0]
    assert_close(layer(values)[:, 0], line + steps @ layer.embed.linear.weight[0])
    assert torch.equal(layer(values)[3, 1], layer.missing[1])


def test_ft_transformer_is_the_published_one() -> None:
    rtdl = pytest.importorskip("rtdl_revisiting_models")
    torch.manual_seed(0)
    ours = tower("ft_transformer", embedding="linear", dim=24, num_layers=3, num_heads=4)
    sizes: dict[str, Any] = {"n_blocks": 3, "d_block": 24, "attention_n_heads": 4, "attention_dropout": 0.2}
    sizes |= {"ffn_d_hidden": 32, "ffn_d_hidden_multiplier": None, "ffn_dropout": 0.1, "residual_dropout": 0.0}
    theirs = rtdl.FTTransformer(n_cont_features=2, cat_cardinalities=[5, 7], d_out=None, **sizes).eval()
    state = {"cls_embedding.weight": ours.cls}
    state |= {f"cont_embeddings.{n}": getattr(ours.numeric.embed, n) for n in ("weight", "bias")}
    for i, rows in enumerate(ours.categories.embed.weight.split([5, 7])):
        state[f"cat_embeddings.embeddings.{i}.weight"] = rows
    state["cat_embeddings.bias"] = ours.categories.bias
    renamed = {"W_q": "q", "W_k": "k", "W_v": "v", "W_out": "out"}
    for i, layer in enumerate(ours.layers):
        at = f"backbone.blocks.{i}."
        for kind in ("weight", "bias"):
            for old, new in renamed.items():
                state[f"{at}attention.{old}.{kind}"] = getattr(getattr(layer.attention, new), kind)
            state[f"{at}ffn_normalization.{kind}"] = getattr(layer.norm_mlp, kind)
            state[f"{at}ffn.linear1.{kind}"] = getattr(layer.mlp.fc1, kind)
            state[f"{at}ffn.linear2.{kind}"] = getattr(layer.mlp.fc2, kind)
            if i:
                state[f"{at}attention_normalization.{kind}"] = getattr(layer.norm_attention, kind)
    theirs.load_state_dict({name: value.detach() for name, value in state.items()})
    values, ids = torch.randn(6, 2).clamp(-3, 3), torch.stack([torch.randint(5, (6,)), torch.randint(7, (6,))], dim=1)
    assert_close(ours(values, ids).pooled, ours.norm(theirs(values, ids)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_a_missing_cell_gives_no_nan_anywhere(name: str) -> None:
    model = tower(name, cell_dropout=0.5).train()
    values = torch.full((8, 2), NAN).requires_grad_()
    model(values, torch.zeros(8, 2, dtype=torch.long)).pooled.square().sum().backward()
    assert values.grad is not None and not values.grad.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_hidden_cells_train_what_no_training_row_lacks() -> None:
    model = tower("table_mlp", cell_dropout=0.5).train()
    inputs = {"numeric_values": torch.randn(64, 2), "category_ids": torch.full((64, 2), 2)}
    model(**inputs).pooled.pow(3).sum().backward()
    assert model.numeric.missing.grad.any(dim=1).all()
    assert model.categories.embed.weight.grad.any(dim=1).tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 4
    assert torch.equal(model.eval()(**inputs).pooled, model(**inputs).pooled)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision(name: str, dtype: torch.dtype) -> None:
    model = tower(name)
    model.set_statistics(torch.tensor([2000.0, 0]), torch.tensor([3.0, 1]), [torch.linspace(1990, 2010, 5)])
    inputs = batch_of(model, torch.tensor([[1998.0, 1], [2001, NAN]]))
    expected = model(**inputs).pooled
    found = copy.deepcopy(model).to(dtype)(**inputs).pooled
    assert found.dtype == dtype
    assert_close(found.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.15)
    assert copy.deepcopy(model).bfloat16().numeric.standardize.mean.tolist() == [2000, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(model(**inputs).pooled.float(), expected, rtol=0, atol=0.15)


def batch_of(model: Any, values: Tensor) -> dict[str, Tensor]:
    return {"numeric_values": values, "category_ids": torch.tensor([[0, 3], [4, 1]])[: len(values)]}


@pytest.mark.parametrize("name", TOWERS)
def test_compiled(name: str) -> None:
    model = tower(name)
    inputs = batch_of(model, torch.tensor([[0.5, NAN], [1, 2]]))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(**inputs).pooled, model(**inputs).pooled)


@pytest.mark.parametrize("columns", [{"numeric": 2, "categories": []}, {"numeric": 0, "categories": [3]}])
@pytest.mark.parametrize("name", TOWERS)
def test_one_kind_of_columns(name: str, columns: dict[str, Any]) -> None:
    model = mmfusion.create_model("table_mlp", num_classes=2, table_encoder=name, table_args=columns).eval()
    (read,) = model.table_tower.inputs
    assert read == ("numeric_values" if columns["numeric"] else "category_ids")
    inputs = batch(model) | ({"category_ids": torch.zeros(4, 0, dtype=torch.long)} if columns["numeric"] else {})
    assert model(**inputs).logits.shape == (4, 2)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="A table tower needs columns; give table_args="):
        mmfusion.create_model("table_mlp", num_classes=2)
    with pytest.raises(TypeError, match=r"table_args=.* is for a part that this model does not have"):
        mmfusion.create_model("test_text", table_args={"numeric": 1})
    with pytest.raises(ValueError, match="Unknown table_tower 'table_mpl'; did you mean 'table_mlp'"):
        mmfusion.create_model("table_mlp", table_encoder="table_mpl", table_args={"numeric": 1})
    with pytest.raises(ValueError, match="a fusion block needs both sides"):
        mmfusion.create_model("test_image", table_encoder="table_mlp", table_args={"numeric": 1})
    with pytest.raises(ValueError, match=r"bins=\[3\] has to hold 2 numbers"):
        tower("table_mlp", bins=[3])
    model = tower("table_mlp")
    with pytest.raises(ValueError, match=r"numeric_values must be \(B, 2\), one number per column; got \(1, 3\)"):
        model(torch.zeros(1, 3), torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"category_ids: 9 in column 1, .* 2 to 6 \(table_args"):
        model(torch.zeros(1, 2), torch.tensor([[0, 9]]))
    with pytest.raises(ValueError, match="reads numeric_values and category_ids, but got category_ids alone"):
        combined("image+table", "table_mlp")(
            torch.zeros(1, 3, 48, 48), category_ids=torch.zeros(1, 2, dtype=torch.long)
        )
    two = torch.tensor([1.0, 2])
    for wrong, message in (
        ((two, torch.tensor([1.0, 0])), "above 0"),
        ((torch.tensor([1.0, NAN]), two), "2 finite numbers"),
        ((two, two, [torch.arange(4.0), two]), r"column 0 has 4 edges, and the model was built for bins\[0\]=5"),
        ((two, two, [torch.tensor([0.0, 1, 1, 2, 3]), two]), "do not strictly increase"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_statistics(*wrong)


def test_swapping_parts() -> None:
    args = {"numeric": 1, "categories": [3, 15]}
    swapped = mmfusion.create_model("table_mlp", table_encoder="ft_transformer", table_args=args, num_classes=2)
    assert swapped.config["table_args"] == args and type(swapped.table_tower).__name__ == "FTTransformer"
    assert "table_encoder" not in mmfusion.create_model("test_mibf").config
    one = combined("image+table", "table_mlp", modality_dropout=0.2)
    assert one.config["text_encoder"] is None and one.config["text_args"] == {} and one.config["fusion"] == "ibfa"
    both = combined("text+table", "table_mlp", modality_dropout=0.2)
    assert both.fusion is None and both.modality_dropout == 0.2 and both.aux_heads is None
    meta = {**COMBINATIONS["image+text+table"][1], "table_encoder": "ft_transformer"}
    with torch.device("meta"):
        model = mmfusion.create_model("mibf_lite0", **{**TINY, **meta})
    assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"meta"}


def test_a_table_tower_is_no_encoder() -> None:
    """It starts from random weights, is not frozen with the encoders, and has the full learning rate."""
    model = combined("image+text+table", "table_mlp")
    model.freeze_encoders()
    assert all(p.requires_grad for p in model.table_tower.parameters())
    assert not any(p.requires_grad for p in model.image_tower.backbone.parameters())
    rates = {id(p): group["lr"] for group in model.param_groups(lr=1.0) for p in group["params"]}
    assert {rates[id(p)] for p in model.table_tower.parameters()} == {1.0}
    model.freeze_encoders(image=False, text=False, table=True)
    assert not any(p.requires_grad for p in model.table_tower.parameters()) and not model.train().table_tower.training


def test_kept_image_features_go_with_live_columns() -> None:
    model = combined("image+text+table", "ft_transformer").eval()
    inputs = batch(model)
    expected = model(**inputs).logits
    kept = {"image_features": model.image_tower.encode(inputs.pop("pixel_values"))}
    assert torch.equal(model(**kept, **inputs).logits, expected)
    present = torch.tensor([True, False, True, True])
    found = model(**kept, **inputs, image_present=present).logits
    assert torch.equal(found[present], expected[present]) and not torch.allclose(found[1], expected[1])
