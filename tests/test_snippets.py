"""Calls that users of timm, transformers and scikit-learn try first: they work, or the error says what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

import mmfusion
from mmfusion import registry
from mmfusion.data import DatasetConfig, MultimodalDataset, Processor, fit_wordpiece, make_demo, read_cases

TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> MultimodalDataset:
    """50 labeled rows of five classes, with their processor."""
    config = DatasetConfig(text_template=TEMPLATE)
    cases = read_cases(make_demo(tmp_path_factory.mktemp("demo"), n=50), config).resolve()
    reader = Processor(text_template=TEMPLATE)
    tokenizer = fit_wordpiece([reader.text_of(row) or "" for row in cases.frame.to_dict("records")])
    processor = Processor(cases.labels, image_size=32, tokenizer=tokenizer, text_template=TEMPLATE)
    return MultimodalDataset(cases, processor)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with registry.temporarily():
        yield


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


# ---- timm


def test_timm_features_and_a_new_head() -> None:
    model = mmfusion.create_model("test_image", pretrained=False, num_classes=0).eval()
    x = torch.randn(2, 3, 64, 64)
    assert model(x).logits.shape == (2, model.num_features)
    model.reset_classifier(num_classes=10)
    assert model.forward_head(model.forward_features(x)).shape == (2, 10) and model.num_classes == 10
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert torch.equal(pooled, model(x).features)
    assert model.device.type == "cpu" and model.dtype == torch.float32 and model.double().dtype == torch.float64


def test_timm_names() -> None:
    assert mmfusion.list_models("test_*", exclude_filters=["*mibf", "*attention"]) == [
        *("test_concat", "test_image", "test_text")
    ]
    assert mmfusion.list_models(["test_i*", "test_t*"]) == ["test_image", "test_text"]
    assert mmfusion.list_models("") == mmfusion.list_models()
    assert mmfusion.list_pretrained("mibf_*lite0") == mmfusion.list_models("mibf_*.ham10000", pretrained=True)
    assert [type(name) for name in mmfusion.list_pretrained()] == [str] * len(mmfusion.list_pretrained())
    assert mmfusion.is_model("mibf_resnet50") and not mmfusion.is_model("mibf_resnet51")
    (name,) = mmfusion.list_pretrained("mibf_lite0")
    assert mmfusion.is_model(name) and not mmfusion.is_model(f"{name}x")
    cfg = mmfusion.get_pretrained_cfg("mibf_lite0")
    assert (cfg["architecture"], cfg["tag"], cfg["num_classes"]) == ("mibf_lite0", "ham10000", 7)
    assert len(cfg["label_names"]) == 7 and cfg["license"] == "cc-by-nc-4.0" and cfg["size"] > 10**6
    with pytest.raises(ValueError, match="No pretrained weights for 'mibf_resnet50'"):
        mmfusion.get_pretrained_cfg("mibf_resnet50")


def test_timm_data_config_is_the_trained_models(rows: MultimodalDataset) -> None:
    from timm.data import create_transform, resolve_model_data_config

    predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000", device="cpu")
    known = mmfusion.get_pretrained_cfg("mibf_lite0.ham10000")
    for model in (predictor.model, mmfusion.create_model("mibf_lite0", pretrained=True)):
        cfg = resolve_model_data_config(model)
        assert cfg["input_size"] == (3, 112, 112) and cfg == {name: known[name] for name in cfg}
        assert (model.pretrained_cfg["tag"], model.default_cfg["num_classes"]) == ("ham10000", 7)
        assert "hf_hub_id" not in model.pretrained_cfg  # where the encoder's weights came from
    mine = create_transform(**cfg)(picture())
    torch.testing.assert_close(mine[None], predictor.processor(picture())["pixel_values"], atol=0.02, rtol=0)
    fresh = mmfusion.create_model("test_image", processor=rows.processor)  # an own loop, before anything is saved
    assert resolve_model_data_config(fresh)["input_size"] == (3, 32, 32)


def test_saving_a_model_alone_tells_what_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000", device="cpu")
    caplog.clear()
    predictor.model.save_pretrained("alone")
    mmfusion.save_pretrained(predictor.model, "two", predictor.processor)
    one, two = caplog.messages
    kept = "if its weights are unchanged, predictor.save_pretrained(folder) keeps everything"
    assert one.startswith(f"alone is saved without the trained model's calibration and processor: {kept}; save_pret")
    assert two == f"two is saved without the trained model's calibration: {kept}"
    predictor.save_pretrained("whole")
    predictor.model.reset_classifier(7)  # nothing was fitted with a new head
    mmfusion.save_pretrained(predictor.model, "new", predictor.processor)
    assert len(caplog.messages) == 2


def test_timm_pretrained_without_weights_says_what_to_type() -> None:
    with pytest.raises(ValueError, match=r"create_model\('mibf_resnet50', encoder_weights=\"default\"\)") as told:
        mmfusion.create_model("mibf_resnet50", pretrained=True)
    assert "\n" not in str(told.value)


def test_timm_register_model() -> None:
    @mmfusion.register_model
    def my_net(pretrained: bool = False, **kwargs: Any) -> mmfusion.FusionModel:
        return mmfusion.FusionModel(**{"image_encoder": "test_resnet", "head": "linear", **kwargs})

    model = mmfusion.create_model("my_net", num_classes=3)
    assert mmfusion.is_model("my_net") and model.architecture == "my_net" and model.num_classes == 3


def test_timm_own_loop_and_save(rows: MultimodalDataset) -> None:
    from timm.optim import create_optimizer_v2

    torch.manual_seed(0)
    model = mmfusion.create_model("test_concat", processor=rows.processor)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3)
    loader = DataLoader(rows, batch_size=25, shuffle=True, collate_fn=rows.collate)
    losses = []
    for _epoch in range(6):
        for batch in loader:
            labels = batch.pop("labels")
            loss = F.cross_entropy(model(**batch).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    mmfusion.save_pretrained(model.eval(), "mine", rows.processor)
    again = mmfusion.create_model(Path("mine"))
    assert torch.equal(again(**batch).logits, model(**batch).logits)


# ---- transformers


def test_transformers_call_and_loss(rows: MultimodalDataset) -> None:
    model, processor = mmfusion.create_model("test_mibf", processor=rows.processor).eval(), rows.processor
    inputs = processor(images=picture(), text="55-year-old male, lesion on the back", return_tensors="pt")
    assert set(inputs) == {"pixel_values", "image_present", "input_ids", "attention_mask", "text_present"}
    outputs = model(**inputs, labels=torch.tensor([2]))
    loss, logits = outputs[:2]
    assert loss is outputs.loss and logits is outputs.logits
    torch.testing.assert_close(loss, -logits.log_softmax(dim=-1)[0, 2])
    assert model(**inputs).loss is None and model(**inputs)[0].shape == (1, 5)
    model(**rows.collate([rows[i] for i in range(4)])).loss.backward()


def test_transformers_trainer_takes_the_model(rows: MultimodalDataset) -> None:
    from transformers import Trainer, TrainingArguments

    model = mmfusion.create_model("test_mibf", processor=rows.processor)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = TrainingArguments("out", max_steps=2, per_device_train_batch_size=8, report_to="none", use_cpu=True)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=rows.collate,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )
    assert trainer.train().global_step == 2
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    found = trainer.evaluate()
    batch = rows.collate([rows[i] for i in range(50)])
    with torch.no_grad():
        output = model.eval()(**batch)
    assert found["eval_loss"] == pytest.approx(output.loss.item(), abs=1e-5)
    assert found["eval_accuracy"] == float((output.logits.argmax(-1) == batch["labels"]).double().mean())
    assert trainer.predict(rows).predictions.shape == (50, 5)
    assert "use_cache" not in model.config and model.config == mmfusion.FusionModel(**model.config).config


def test_transformers_save_and_load(rows: MultimodalDataset) -> None:
    model = mmfusion.create_model("test_mibf", processor=rows.processor).eval()
    model.save_pretrained("./my_model", processor=rows.processor)
    predictor = mmfusion.Predictor.from_pretrained("./my_model", device="cpu")
    batch = rows.collate([rows[i] for i in range(4)])
    assert torch.equal(predictor.model(**batch).logits, model(**batch).logits)
    predictor.save_pretrained("./again")
    assert mmfusion.Predictor.from_pretrained(Path("again"), device="cpu").labels == rows.processor.labels


def test_transformers_push_without_a_token_says_what_to_do(
    rows: MultimodalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    predictor = untrained(rows)
    with pytest.raises(PermissionError, match=r"org/name: there is no access token; log in with `hf auth login`"):
        predictor.push_to_hub("org/name")


# ---- scikit-learn


def untrained(rows: MultimodalDataset) -> mmfusion.Predictor:
    return mmfusion.Predictor(mmfusion.create_model("test_mibf", processor=rows.processor), rows.processor)


def test_sklearn_predict_on_the_records_of_a_frame(rows: MultimodalDataset) -> None:
    predictor = untrained(rows)
    frame = pd.DataFrame({"image": [picture(), picture()], "age": [55, 60], "sex": ["male", "female"]})
    found = predictor.predict(frame.to_dict("records"))
    proba = np.array([[row["probabilities"][label] for label in predictor.labels] for row in found])
    assert proba.shape == (2, 5)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


@pytest.fixture
def patients(tmp_path: Path) -> pd.DataFrame:
    """30 rows of 10 patients of two classes, with absolute paths, a text and an age."""
    rows = []
    for i in range(30):
        path = tmp_path / f"{i}.png"
        picture().save(path)
        age = 30.0 + 40 * (i // 3 % 2) + i / 30
        rows.append({"image": str(path), "text": f"aged {age:.0f}", "age": age, "patient": i // 3})
    frame = pd.DataFrame(rows)
    return frame.assign(label=np.where(frame["age"] > 50, "mel", "nv"))


TINY: dict[str, Any] = {"epochs": 1, "batch_size": 8, "settings": {"processor.image_size": 32}}


def test_sklearn_cross_validation_by_patient(patients: pd.DataFrame) -> None:
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

    clf = mmfusion.FusionClassifier("test_mibf", **TINY)
    X, y, groups = patients[["image", "text", "age"]], patients["label"], patients["patient"]
    scores = cross_val_score(clf, X, y, groups=groups, cv=StratifiedGroupKFold(2), error_score="raise")
    assert scores.shape == (2,) and ((scores >= 0) & (scores <= 1)).all()


def test_sklearn_search_over_fusion_blocks(patients: pd.DataFrame, tmp_path: Path) -> None:
    from sklearn.model_selection import GridSearchCV

    clf = mmfusion.FusionClassifier("test_mibf", **TINY)
    grid = {"fusion": ["concat", "gated"], "head": ["linear"]}
    search = GridSearchCV(clf, grid, cv=2, scoring="roc_auc", error_score="raise").fit(
        patients[["image", "text"]], patients["label"]
    )
    config = search.best_estimator_.predictor_.model.config
    assert (config["fusion"], config["head"]) == (search.best_params_["fusion"], "linear")
    folder = search.best_estimator_.save_pretrained(tmp_path / "best")
    assert mmfusion.Predictor.from_pretrained(folder).labels == ["mel", "nv"]
    with pytest.raises(ValueError, match=r"no parameter 'image_size'.*Other settings .*'processor\.image_size'"):
        clf.set_params(image_size=32)


def test_sklearn_pipeline_of_columns(patients: pd.DataFrame) -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.inspection import permutation_importance
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    clf = mmfusion.FusionClassifier(epochs=40, batch_size=8, lr=1e-2)
    X = patients[["age"]].assign(noise=np.random.default_rng(0).normal(size=30)).to_numpy()
    X[3, 1] = np.nan
    pipe = make_pipeline(SimpleImputer(), StandardScaler(), clf).fit(X, patients["label"])
    assert pipe.score(X, patients["label"]) == 1.0
    found = permutation_importance(pipe, X, patients["label"], n_repeats=3, random_state=0)
    assert found.importances_mean.argmax() == 0


def wrong_tokenizer(rows: MultimodalDataset) -> None:
    ids = torch.tensor([[1, 700]])
    mmfusion.create_model("test_text")(input_ids=ids)


def too_few_pieces(rows: MultimodalDataset) -> None:
    mmfusion.create_model("test_mibf", processor=rows.processor, text_args={"vocab_size": 9})


def save_with_another_processor(rows: MultimodalDataset) -> None:
    mmfusion.save_pretrained(mmfusion.create_model("test_image", num_classes=3), "x", rows.processor)


def save_a_predictor(rows: MultimodalDataset) -> None:
    mmfusion.save_pretrained(mmfusion.Predictor(torch.nn.Identity(), rows.processor), "x")


def text_without_a_tokenizer(rows: MultimodalDataset) -> None:
    mmfusion.create_model("test_mibf", processor=Processor(["a", "b"], image_size=32))


def labels_without_classes(rows: MultimodalDataset) -> None:
    mmfusion.create_model("test_image", num_classes=0)(torch.randn(2, 3, 32, 32), labels=torch.tensor([0, 1]))


def without_a_processor(rows: MultimodalDataset) -> None:
    mmfusion.save_pretrained(mmfusion.create_model("test_image", num_classes=5), "alone")
    mmfusion.Predictor.from_pretrained("alone")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            lambda rows: mmfusion.AutoModel,
            r"no attribute 'AutoModel'; create_model\('local-dir:FOLDER'\), or Predictor",
        ),
        (lambda rows: untrained(rows).predict("a.jpg"), r"predict needs a list of rows, such as \[\{'image': 'a\.jpg'"),
        (lambda rows: untrained(rows).predict(["a.jpg"]), r"not str; for a single image pass \{'image': 'a\.jpg'\}"),
        (lambda rows: mmfusion.train(".", model="mibf_lite0"), r"the model is named by model=\{'name': 'mibf_lite0'\}"),
        (
            wrong_tokenizer,
            "input_ids have the word piece 700, but the text encoder has 0 to 127: the tokenizer belongs",
        ),
        (too_few_pieces, r"word pieces, but the model's text encoder 9; create_model\(\.\.\., processor=processor\)"),
        (
            lambda rows: mmfusion.create_model("resnet18"),
            r"'resnet18': it is an image encoder of timm; create_model\('image_lite0', image_encoder='resnet18'\)",
        ),
        (
            lambda rows: mmfusion.FusionModel.from_pretrained("x"),
            r"\('x'\): create_model\('local-dir:FOLDER'\), or ",
        ),
        (
            lambda rows: untrained(rows).model(rows.collate([rows[0]])),
            r"a batch is given by keyword, model\(\*\*batch\)",
        ),
        (lambda rows: untrained(rows)("a.jpg"), r"needs a list of rows, such as \[\{'image': 'a.jpg'\}\]"),
        (lambda rows: mmfusion.list_modules, r"list_models\(\) and list_components\(KIND\)"),
        (lambda rows: mmfusion.data.resolve_data_config, r"model\.pretrained_cfg has input size"),
        (lambda rows: mmfusion.data.create_transform, r"\.processor makes the inputs of a model"),
        (
            lambda rows: mmfusion.Predictor("x", rows.processor),
            r"Predictor\.from_pretrained\('x'\) loads",
        ),
        (
            without_a_processor,
            r"no processor settings; .* mmfusion\.save_pretrained\(model, FOLDER, processor\), or load",
        ),
        (save_with_another_processor, "The model has 3 classes, but the processor 5: "),
        (save_a_predictor, r"a Predictor saves itself, with predictor\.save_pretrained\(folder\)"),
        (text_without_a_tokenizer, "The model reads text, but the processor has no tokenizer"),
        (labels_without_classes, r"num_classes=0 and labels were given; model\.reset_classifier\(C\) first"),
    ],
)
def test_what_does_not_fit_is_one_line(typed: Callable[[Any], None], told: str, rows: MultimodalDataset) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError), match=told) as caught:
        typed(rows)
    assert "\n" not in str(caught.value)
    assert not Path("x").exists()
