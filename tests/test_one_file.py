"""A file added to a copy of the package is found, tested and documented."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmfusion

ROOT = Path(mmfusion.__file__).parents[1]
CHECK = """
import sys
import mmfusion
assert mmfusion.__file__.startswith(sys.argv[1]), mmfusion.__file__
assert "difference" in mmfusion.list_components("fusion")
assert mmfusion.fusion.Difference.__module__ == "mmfusion.fusion.difference"
assert "Difference" in mmfusion.fusion.__all__
assert type(mmfusion.create_model("test_concat", fusion="difference").fusion) is mmfusion.fusion.Difference
assert mmfusion.create_model("gated_lite0", num_classes=3).config["fusion_args"] == {"gate": "sample"}
sys.path.insert(0, sys.argv[1] + "/docs")
import generate_catalogue
row = "Both projected vectors and the distance between them: `[v; t; |v - t|]`.".replace("|", "\\\\|")
assert f"| `difference` | `image_dim`, `text_dim`, `dim` | {row} |" in generate_catalogue.components("fusion")
assert f"| `difference` | `Difference` | {row} |" in generate_catalogue.readme()
assert "from mmfusion.fusion.difference import Difference as Difference" in generate_catalogue.stub("fusion")
"""


def snippets() -> list[str]:
    """The examples of CONTRIBUTING.md: a block and a model."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for name in ("mmfusion", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copytree(ROOT / "docs", root / "docs")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root / name)
    block, model = snippets()[:2]
    (root / "mmfusion" / "fusion" / "difference.py").write_text(f'"""A block more."""\n\n{block}', encoding="utf-8")
    (root / "mmfusion" / "models" / "one_more.py").write_text(f'"""A model more."""\n\n{model}', encoding="utf-8")
    return root


def run(copy: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_found_and_documented(copy: Path) -> None:
    run(copy, "-c", CHECK, str(copy))


@pytest.mark.slow
def test_it_is_tested(copy: Path) -> None:
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", "-k", "difference or gated_lite0"]
    collected = run(copy, *arguments, "--collect-only", "tests/fusion", "tests/models")
    assert "[difference" in collected and "[gated_lite0" in collected
    run(copy, *arguments, "tests/fusion")
