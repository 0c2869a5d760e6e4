"""The wheel contains all files, and the shipped weights predict without a network."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import mmfusion

ROOT = Path(mmfusion.__file__).parents[1]

PREDICT = """
import json, socket, sys

def closed(*args, **kwargs):
    raise AssertionError("the network was touched")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = closed
import mmfusion
predictor = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000")
(row,) = predictor.predict([{"image": sys.argv[1], "age": 55, "sex": "male", "localization": "back"}])
print(json.dumps({"home": mmfusion.__file__, **row}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without a developer's ``build`` folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mmfusion", source / "mmfusion", ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("mmfusion/")}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mmfusion").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == tracked


@pytest.mark.slow
def test_the_installed_wheel_predicts_with_the_shipped_weights(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    zipfile.ZipFile(wheel).extractall(own)  # a pure wheel's installation is its unpacking
    # the dependencies are those of the tests, found behind the environment's own packages
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    image = tmp_path / "lesion.png"
    Image.new("RGB", (64, 64), (180, 120, 100)).save(image)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", PREDICT, image], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["home"]).is_relative_to(own)
    expected = mmfusion.Predictor.from_pretrained("mibf_lite0.ham10000").predict(
        [{"image": image, "age": 55, "sex": "male", "localization": "back"}]
    )[0]
    assert found["label"] == expected["label"]
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
