"""The weights that come with the package."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

import mmfusion
from mmfusion.artifacts.shipped import _roots, tell_terms
from mmfusion.cli.config import InfoConfig
from mmfusion.cli.info import info
from mmfusion.data import Processor
from mmfusion.models import load_model

#: weights -> probabilities of akiec, bcc, bkl, df, mel, nv, vasc for two rows.
EXPECTED = {
    "image_lite0.ham10000": [
        [0.00967, 0.01567, 0.04604, 0.02092, 0.00439, 0.8469, 0.05641],
        [0.00967, 0.01567, 0.04604, 0.02092, 0.00439, 0.8469, 0.05641],
    ],
    "mibf_lite0.ham10000": [
        [0.00508, 0.02299, 0.08287, 0.00909, 0.05137, 0.75254, 0.07606],
        [0.04032, 0.04723, 0.24105, 0.04825, 0.08591, 0.44581, 0.09144],
    ],
    "mibf_v2_lite0.ham10000": [
        [0.00264, 0.00821, 0.03155, 0.00486, 0.00353, 0.82118, 0.12804],
        [0.02554, 0.02447, 0.29418, 0.01816, 0.01566, 0.40874, 0.21324],
    ],
}

#: weights -> probability of the first class for two cases.
SPINE = {
    "multiview_lite0.spider_modic": [0.81777, 0.04061],
    "multiview_lite0.spider_pfirrmann": [0.95207, 0.89178],
}

SHIPPED = mmfusion.list_models(pretrained=True)


def test_names():
    assert "mibf_lite0.ham10000" in SHIPPED
    assert mmfusion.list_models("mibf*", pretrained=True) == ["mibf_lite0.ham10000", "mibf_v2_lite0.ham10000"]
    assert mmfusion.list_models("concat*", pretrained=True) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_say_what_they_are_and_are_small(name):
    assert isinstance(name, str) and name.split(".")[0] in mmfusion.list_models()
    assert name.dataset and name.license and 0 < name.metrics["accuracy"] < 1
    assert name.size == (name.folder / "model.safetensors").stat().st_size <= 12e6
    for fact in (name, name.dataset, name.license, f"accuracy {name.metrics['accuracy']:.3f}", "MB"):
        assert fact in repr(name)
    again = pickle.loads(pickle.dumps(name))
    assert again == name and again.size == name.size
    assert "## Confusion matrix" in (name.folder / "README.md").read_text()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", SHIPPED)
def test_load_without_a_network(name):
    by_tag = mmfusion.create_model(name, pretrained=True)
    folder = load_model(name.folder).state_dict()
    assert all((x == folder[key]).all() for key, x in by_tag.state_dict().items())
    assert mmfusion.Predictor.from_pretrained(name).calibration == name.config["calibration"]


def test_an_architecture_has_the_weights_of_its_first_tag():
    first = {name.split(".")[0]: name for name in reversed(SHIPPED)}
    assert first["multiview_lite0"] == "multiview_lite0.spider_modic"
    for architecture, name in first.items():
        expected = load_model(name.folder).state_dict()
        model = mmfusion.create_model(architecture, pretrained=True)
        assert all((x == expected[key]).all() for key, x in model.state_dict().items())


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_skin_models_say(name):
    """A dark disc on skin: the same prediction as when the weights were added."""
    y, x = np.mgrid[:150, :200]
    disc = ((y - 75) ** 2 + (x - 100) ** 2 < 40**2)[..., None]
    picture = Image.fromarray(np.where(disc, [90, 55, 50], [215, 160, 145]).astype(np.uint8))
    predictor = mmfusion.Predictor.from_pretrained(name)
    rows = [{"image": picture, "age": 30, "sex": "female", "localization": "back"}, {"image": picture}]
    for found, expected in zip(predictor.predict(rows), EXPECTED[name], strict=True):
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SPINE)
def test_what_the_spine_models_say(name):
    """Stripes, out of phase in the second image: the same prediction as when the weights were added."""
    y, x = np.mgrid[:320, :248]
    stripes = [np.sin(y / 14 + phase) * np.exp(-(((x - 124) / 40) ** 2)) for phase in (0, 1)]
    first, second = (Image.fromarray((127 + 100 * values).astype(np.uint8)) for values in stripes)
    predictor = mmfusion.Predictor.from_pretrained(name)
    rows = [{"images": [first, second]}, {"images": [None, second]}]
    for found, expected in zip(predictor.predict(rows), SPINE[name], strict=True):
        np.testing.assert_allclose(found["probabilities"][predictor.labels[0]], expected, rtol=0, atol=1e-4)


def test_metadata_that_no_one_reads_are_named(caplog):
    predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000")
    predictor.predict([{"Age": 55, "gender": "male"}, {"image": Image.new("RGB", (20, 20))}])
    assert "the rows have keys that the model does not use: 'Age' (did you mean 'age'?), 'gender'" in caplog.messages
    caplog.clear()
    predictor.predict([{"age": 55, "gender": "male"}])
    assert "the rows have keys that the model does not use: 'gender'" in caplog.messages


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Install a distribution that provides a package folder with an untrained model as weights."""
    _roots.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)
    model = mmfusion.create_model("test_image", num_classes=2)
    card = {"dataset": "Toy", "license": "cc-by-nc-4.0"}

    def install(package, value=None, name="test_image.toy"):
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[mmfusion.weights]\n{package} = {value or package}\n")
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('weights need no code')")
        predictor = mmfusion.Predictor(model, Processor(["no", "yes"], image_size=32), card=card)
        _roots.cache_clear()
        return predictor.save_pretrained(tmp_path / package / name)

    yield install
    _roots.cache_clear()
    tell_terms.cache_clear()


def test_weights_of_another_wheel_are_found(wheel, caplog):
    folder = wheel("toy_weights")
    assert mmfusion.list_pretrained() == [*SHIPPED, "test_image.toy"] and mmfusion.is_model("test_image.toy")
    (name,) = mmfusion.list_models("test_image*", pretrained=True)
    assert repr(name).endswith("cc-by-nc-4.0 (for research only), from toy_weights>")
    cfg = mmfusion.get_pretrained_cfg("test_image")
    assert (cfg["tag"], cfg["license"], cfg["package"], cfg["metrics"]) == ("toy", "cc-by-nc-4.0", "toy_weights", {})
    expected = load_model(folder).state_dict()
    for _ in range(2):
        model = mmfusion.create_model("test_image", pretrained=True)
        assert all((x == expected[key]).all() for key, x in model.state_dict().items())
    told = "test_image.toy: weights under cc-by-nc-4.0 (for research only), from toy_weights"
    assert [record.getMessage() for record in caplog.records] == [told]
    assert "cc-by-nc-4.0 (for research only); with the package toy_weights" in info(InfoConfig("test_image.toy"))
    assert mmfusion.Predictor.from_pretrained("test_image.toy").labels == ["no", "yes"]


def test_edited_weights_of_a_wheel_are_taken_where_that_is_asked_for(wheel):
    path = wheel("toy_weights") / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ValueError, match="allow_edited=True"):
        mmfusion.create_model("test_image.toy")
    with pytest.warns(UserWarning, match="accepted"):
        mmfusion.create_model("test_image.toy", allow_edited=True)


def test_two_wheels_with_weights_of_one_name_are_refused_by_that_name(wheel):
    folder = wheel("toy_weights")
    wheel("other_weights")
    for ask in (mmfusion.list_pretrained, lambda: mmfusion.create_model("test_image.toy")):
        with pytest.raises(ValueError, match=r"test_image\.toy is in both \w+_weights and \w+_weights; uninstall"):
            ask()
    assert mmfusion.Predictor.from_pretrained(f"local-dir:{folder}").labels == ["no", "yes"]
    assert mmfusion.create_model(SHIPPED[0], pretrained=True).num_classes == 7


@pytest.mark.parametrize("value", ["..", "toy_weights.checkpoints:x", "no_such_package", "json.decoder"])
def test_an_entry_point_that_is_no_package_with_weights_brings_none(wheel, value, caplog):
    wheel("toy_weights", value)
    assert mmfusion.list_pretrained() == SHIPPED
    assert value == "json.decoder" or "is not a package" in caplog.text


def test_a_folder_that_leads_out_of_its_package_is_left_out(wheel, tmp_path, caplog):
    folder = wheel("toy_weights")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert mmfusion.list_pretrained() == SHIPPED and "is a link out of its folder" in caplog.text
