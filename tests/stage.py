"""Files for the snippets of the pages: models in ``runs/``, images, data sets, configurations, and a Hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import mmfusion
from mmfusion.data import Processor, fit_wordpiece

ROOT = Path(mmfusion.__file__).parents[1]
TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}"
LABELS = ["akiec", "mel", "nv"]
#: names of saved models in the pages.
RUNS = ("first", "both", "ham10000", "seed0", "seed1", "image", "a", "b", "c")


def set_up(root: Path, data: Path) -> None:
    """Create the folder in which the snippets run."""
    root.mkdir()
    shutil.copytree(ROOT / "examples", root / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("my_cases", "new_cases", "DATA", "data", "photos"):
        (root / name).symlink_to(data, target_is_directory=True)
    for name in ("a.jpg", "new.jpg", "other.jpg"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    tokenizer = fit_wordpiece(["55-year-old male, lesion on the back", "a woman, face; grows"], vocab_size=120)
    processor = Processor(LABELS, image_size=32, tokenizer=tokenizer, text_template=TEMPLATE, max_length=24)
    torch.manual_seed(0)
    model = mmfusion.create_model("test_mibf", processor=processor)
    for run in RUNS:
        mmfusion.save_pretrained(model, root / "runs" / run / "best", processor)
    for page, files in (("quickstart", ["names.yaml", "cases.yaml"]), ("studies", ["study.yaml", "sweep.yaml"])):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for name, block in zip(files, blocks, strict=True):
            (root / name).write_text(block)
    frozen = ROOT / "examples" / "studies" / "ham10000_frozen.yaml"
    shutil.copy(frozen, root / frozen.name)
    (root / "runs" / "sweeps" / "ham").mkdir(parents=True)
    shutil.copy(root / "cases.yaml", root / "runs" / "sweeps" / "ham" / "best.yaml")


def names_of(page: str) -> dict[str, Any]:
    """Names that a page has defined before a snippet."""
    if page != "docs/evaluation.md":
        return {}
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), size=(3, 60))
    names: dict[str, Any] = {"patients": np.arange(60) // 2, "labels": np.arange(60) % 3}
    names |= {"probabilities_a": scores[0], "probabilities_b": scores[1], "probabilities": scores[1]}
    return names | {"val_labels": np.arange(60) % 3, "val_probabilities": scores[2]}


def smaller(code: str) -> str:
    """A training run short enough for a test; all other snippets run unchanged."""
    if not any(
        word in code
        for word in ("train(RunConfig", "mmfusion.train(", "mmfusion.auto(", "compare(", "FusionClassifier(")
    ):
        return code
    for written, tried in (("mibf_v2_lite0", "test_mibf"), ("epochs=20", "epochs=1, batch_size=8")):
        code = code.replace(written, tried)
    return code.replace('"epochs": 20', '"epochs": 1, "batch_size": 8')


HUB = """
import sys
sys.path.insert(0, {server!r})
from hub_server import Hub, Repository
import os
hub = Hub()
from pathlib import Path
hub.repositories["org/name"] = Repository(private=True)
hub.repositories["org/name"].commit("v1", {{f.name: f.read_bytes() for f in Path("runs/first/best").iterdir()}})
os.environ |= {{"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_secret"}}
os.environ |= {{"HF_HOME": str(Path("hf").resolve())}}
os.environ.pop("HF_HUB_OFFLINE", None)
"""


def run_with_hub(code: str, folder: Path) -> None:
    """Run a snippet in a process whose Hub is the local server; its address is read at import."""
    server = ROOT / "tests" / "artifacts"
    paths = os.pathsep.join(filter(None, [str(server / "no_waits"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", HUB.format(server=str(server)) + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
