"""The weights that come with the package."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

import mmfusion
from mmfusion.models import load_model

#: probabilities of akiec, bcc, bkl, df, mel, nv, vasc for two rows.
EXPECTED = [
    [0.00508, 0.02299, 0.08287, 0.00909, 0.05137, 0.75254, 0.07606],
    [0.04032, 0.04723, 0.24105, 0.04825, 0.08591, 0.44581, 0.09144],
]

SHIPPED = mmfusion.list_models(pretrained=True)


def test_names():
    assert "mibf_lite0.ham10000" in SHIPPED
    assert mmfusion.list_models("mibf*", pretrained=True) == ["mibf_lite0.ham10000"]
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
    by_architecture = mmfusion.create_model(name.split(".")[0], pretrained=True)
    folder = load_model(name.folder).state_dict()
    for model in (by_tag, by_architecture):
        assert all((x == folder[key]).all() for key, x in model.state_dict().items())
    assert mmfusion.Predictor.from_pretrained(name).calibration == name.config["calibration"]


def test_what_the_skin_model_says():
    """A dark disc on skin: as it answered when it was shipped."""
    y, x = np.mgrid[:150, :200]
    disc = ((y - 75) ** 2 + (x - 100) ** 2 < 40**2)[..., None]
    picture = Image.fromarray(np.where(disc, [90, 55, 50], [215, 160, 145]).astype(np.uint8))
    predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000")
    rows = [{"image": picture, "age": 30, "sex": "female", "localization": "back"}, {"image": picture}]
    for found, expected in zip(predictor.predict(rows), EXPECTED, strict=True):
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=0, atol=1e-4)


def test_metadata_that_no_one_reads_are_named(caplog):
    predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000")
    predictor.predict([{"Age": 55, "gender": "male"}, {"image": Image.new("RGB", (20, 20))}])
    (record,) = caplog.records
    assert record.getMessage() == (
        "No row has any of age, localization, sex, which the model reads; Age, gender is not read."
    )
    caplog.clear()
    predictor.predict([{"age": 55, "gender": "male"}])
    assert not caplog.records
