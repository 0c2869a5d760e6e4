from __future__ import annotations

import pytest
import torch
from torch import nn
from zoo import batch, shrunk

from mmfusion.explanation import attention_maps, column_contributions, modality_contributions, token_relevance
from mmfusion.explanation.text import words_of
from mmfusion.outputs import FusionOutput
from mmfusion.towers import Tower


def test_values_are_the_models_own() -> None:
    model = shrunk("test_mibf").eval()
    inputs = batch(model, rows=1)
    yes, no = torch.tensor([True]), torch.tensor([False])
    found = modality_contributions(model, inputs, 2)
    for name, image, text in (("image+text", yes, yes), ("image", yes, no), ("text", no, yes), ("none", no, no)):
        expected = model(**inputs, image_present=image, text_present=text).logits.softmax(-1)[0, 2].item()
        assert found.values[name] == pytest.approx(expected, abs=1e-6)
    v = found.values
    assert found.drop["image"] == pytest.approx(v["image+text"] - v["text"])
    assert found.shapley["text"] == pytest.approx(((v["text"] - v["none"]) + (v["image+text"] - v["image"])) / 2)
    assert found.interaction == pytest.approx(v["image+text"] - v["image"] - v["text"] + v["none"])


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("name", ["test_concat", "test_attention", "test_mibf", "test_image", "test_text"])
def test_shapley_values_sum_to_the_whole(name: str, output: str) -> None:
    model = shrunk(name).eval()
    found = modality_contributions(model, batch(model, rows=1), 0, output=output)
    everything, nothing = next(iter(found.values.values())), found.values["none"]
    assert sum(found.shapley.values()) == pytest.approx(everything - nothing, abs=1e-12)
    assert (found.interaction is None) == (len(found.shapley) == 1)


def test_an_additive_model() -> None:
    """Additive logits: Shapley value and drop of each modality are its part, without interaction."""

    class Same(Tower):
        def __init__(self, modality: str, name: str) -> None:
            super().__init__()
            self.modality, self.inputs = modality, (name,)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    class Additive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image_tower, self.text_tower = Same("image", "pixel_values"), Same("text", "input_ids")
            self.towers = {"image": self.image_tower, "text": self.text_tower}

        def forward(self, pixel_values, input_ids, image_present, text_present) -> FusionOutput:
            image = self.image_tower(pixel_values).mean(dim=(1, 2, 3)) * image_present
            text = self.text_tower(input_ids).float().sum(dim=1) * text_present
            return FusionOutput(logits=torch.stack([image + text, -text], dim=1))

    inputs = {"pixel_values": torch.full((1, 3, 2, 2), 0.5), "input_ids": torch.tensor([[1, 2]])}
    found = modality_contributions(Additive(), inputs, 0, output="logit")
    assert found.shapley == found.drop == {"image": 0.5, "text": 3.0} and found.interaction == 0


def test_a_missing_modality_takes_no_part() -> None:
    model = shrunk("test_concat").eval()
    inputs = batch(model, rows=1)
    for missing in (
        {"attention_mask": torch.zeros_like(inputs["attention_mask"])},
        {"text_present": torch.tensor([False])},
    ):
        found = modality_contributions(model, inputs | missing, 0)
        assert list(found.values) == ["image", "none"] and list(found.shapley) == ["image"]
    nothing = inputs | {"text_present": torch.tensor([False]), "image_present": torch.tensor([False])}
    with pytest.raises(ValueError, match="none of image, text to remove"):
        modality_contributions(model, nothing, 0)
    with pytest.raises(ValueError, match="output='odds'"):
        modality_contributions(model, inputs, 0, output="odds")


@pytest.mark.parametrize("name", ["test_concat", "test_attention", "test_text"])
def test_token_relevance_is_complete(name: str) -> None:
    model = shrunk(name).eval()
    inputs = batch(model, rows=1)
    blank = torch.zeros_like(inputs["input_ids"])
    blank[0, 0] = inputs["input_ids"][0, 0]
    found = token_relevance(model, inputs, 1, baseline_ids=blank, steps=50)
    difference = (model(**inputs).logits - model(**inputs | {"input_ids": blank}).logits)[0, 1].item()
    assert found.sum().item() == pytest.approx(difference, rel=0.02, abs=1e-4)
    assert found[0] == 0  # the same in both
    again = token_relevance(model, inputs, 1, baseline_ids=blank, method="gradient_x_input")
    assert again.shape == found.shape and again[0] == 0 and "forward" not in vars(model.text_tower)


def test_gradient_x_input_of_a_linear_model() -> None:
    """A bag of words: relevance is the weight of the word's embedding, by either method."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text_tower = nn.Module()
            self.text_tower.backbone = nn.Module()
            self.text_tower.backbone.words = nn.Embedding(4, 1)
            self.text_tower.backbone.get_input_embeddings = lambda: self.text_tower.backbone.words

        def forward(self, input_ids: torch.Tensor) -> FusionOutput:
            total = self.text_tower.backbone.words(input_ids).sum(dim=(1, 2))
            return FusionOutput(logits=torch.stack([total, -total], dim=1))

    model = Bag()
    with torch.no_grad():
        model.text_tower.backbone.words.weight.copy_(torch.tensor([[1.0], [2], [5], [-1]]))
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    for method in ("gradient_x_input", "integrated_gradients"):
        found = token_relevance(model, inputs, 1, baseline_ids=torch.zeros(1, 3, dtype=torch.long), method=method)
        torch.testing.assert_close(found.float(), torch.tensor([-1.0, -4, 2]))
    with pytest.raises(ValueError, match="did you mean 'integrated_gradients'"):
        token_relevance(model, inputs, 1, baseline_ids=inputs["input_ids"], method="integrated")


def test_words_of_pieces() -> None:
    pieces = ["[CLS]", "mel", "##ody", "on", "[SEP]", "[PAD]"]
    assert words_of(pieces, [9, 1, 2, 3, 9, 0], ["[CLS]", "[SEP]", "[PAD]"]) == [("melody", 3), ("on", 3)]
    assert words_of(["<s>", "mel", "ody", "\u0120on"], [9, 1, 2, 3], ["<s>"]) == [("melody", 3), ("on", 3)]
    digits = ["5", "7", ".", "5", "year", "30"]
    assert words_of(digits, [1, 2, 3, 4, 5, 6], []) == [("57", 3), (".", 3), ("5", 4), ("year", 5), ("30", 6)]


def test_attention_maps() -> None:
    weights = torch.rand(1, 2, 3, 6).softmax(-1)
    both = torch.rand(1, 2, 3, 9).softmax(-1)
    attentions = {"text_to_image.0": weights, "text_to_both": both, "image_to_text.0": torch.rand(1, 2, 6, 3)}
    found = attention_maps(attentions, (2, 3), torch.tensor([[1, 1, 0]]))
    assert list(found) == ["text_to_image.0", "text_to_both"]
    torch.testing.assert_close(found["text_to_image.0"], weights[0, :, :2].mean((0, 1)).view(2, 3))
    torch.testing.assert_close(found["text_to_both"], both[0, :, :2, 3:].mean((0, 1)).view(2, 3))
    assert attention_maps(None, (2, 3)) == {} == attention_maps({"text_to_both": torch.rand(1, 1, 1, 2)}, (1, 1))


@pytest.mark.parametrize("count", [3, 10])
def test_columns_of_an_additive_model(count: int) -> None:
    """In an additive model, each column's Shapley value is its own term, exactly or by random orders."""

    class Sum(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.modality, self.inputs = "table", ("numeric_values", "category_ids")

    class Additive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = {"table": Sum()}

        def forward(self, numeric_values, category_ids) -> FusionOutput:
            total = numeric_values.nan_to_num().sum(dim=1) + 0.5 * category_ids.sum(dim=1)
            return FusionOutput(logits=torch.stack([total, -total], dim=1))

    values = torch.arange(count, dtype=torch.float32)[None] + 1
    values[0, 1] = torch.nan
    names = [f"c{i}" for i in range(count)] + ["sex"]
    inputs = {"numeric_values": values, "category_ids": torch.tensor([[3]])}
    found = column_contributions(Additive(), inputs, 0, names, output="logit")
    assert [name for name, _ in found] == [n for n in names if n != "c1"], "a missing cell takes no part"
    expected = [values[0, i].item() for i in range(count) if i != 1] + [1.5]
    assert [value for _, value in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [2, 9])
def test_columns_sum_to_what_the_table_adds(count: int) -> None:
    columns = {"numeric": count, "categories": [3, 5]}
    model = shrunk("test_mibf", table_encoder="table_mlp", table_args=columns, text_args={"vocab_size": 128}).eval()
    inputs = batch(model, rows=1)
    inputs["numeric_values"] = torch.randn(1, count)
    inputs["category_ids"] = torch.tensor([[2, 1]])
    whole = modality_contributions(model, inputs, 1)
    assert list(whole.shapley) == ["image", "text", "table"] and whole.interaction is None
    assert sum(whole.shapley.values()) == pytest.approx(whole.values["image+text+table"] - whole.values["none"])
    names = [f"c{i}" for i in range(count + 2)]
    found = column_contributions(model, inputs, 1, names)
    assert sum(value for _, value in found) == pytest.approx(whole.drop["table"], abs=1e-6)
    assert found == column_contributions(model, inputs, 1, names), "the same each time"
    with pytest.raises(ValueError, match=f"{count + 2} columns, but 1 names"):
        column_contributions(model, inputs, 1, names[:1])
