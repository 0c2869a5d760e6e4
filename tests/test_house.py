"""The structure in docs/design.md: imports go one way, no cycles, short files."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mmfusion
from mmfusion import lazy

PACKAGE = Path(mmfusion.__file__).parent
ROOT = PACKAGE.parent

#: imports in the other direction: (importing module, imported package). Each is inside a function.
EXCEPTIONS = {
    ("mmfusion.inference.predictor", "explanation"),  # Predictor.explain
    ("mmfusion.inference.loading", "exporting"),  # engine="onnx" of a saved model
}
#: public names that a submodule of the same name would hide.
COMMANDS = {
    *("demo", "auto", "train", "evaluate", "predict", "explain", "compare", "sweep", "validate", "embed"),
    *("narrate", "split", "audit", "list", "info", "export", "soup", "push", "app"),
}
LONGEST = 400


def floors() -> list[set[str]]:
    """Packages in docs/design.md, lowest first: the lines of its first text block."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    block = re.search(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block, "docs/design.md has no block of rooms"
    return [set(re.findall(r"\w+", line)) for line in block[1].splitlines()]


@cache
def sources() -> dict[str, Path]:
    """All modules of the package by name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The package or module directly below ``mmfusion`` that contains a module."""
    return [*module.split("."), "mmfusion"][1]


@cache
def imports(module: str) -> set[str]:
    """Imports of a module from the package: at the top, inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(sources()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in sources() else node.module or ""
                for a in node.names
            }
    return found & sources().keys()


def arrows() -> Iterator[tuple[str, str]]:
    """All imports between modules, without the exceptions."""
    for module in sources():
        for imported in imports(module):
            if (module, room(imported)) not in EXCEPTIONS:
                yield module, imported


def test_every_room_is_on_the_design_page() -> None:
    listed = [name for floor in floors() for name in floor]
    assert sorted(listed) == sorted({room(module) for module in sources()}), "docs/design.md and the folders differ"


def test_imports_run_one_way() -> None:
    level = {name: number for number, floor in enumerate(floors()) for name in floor}
    upward = [
        f"{module} imports {imported}"
        for module, imported in arrows()
        if room(module) != room(imported) and level[room(imported)] >= level[room(module)] > 0
    ]
    assert upward == []


def test_models_and_blocks_know_no_data() -> None:
    below = {"layers", "towers", "aggregators", "fusion", "heads", "losses", "models", "artifacts"}
    assert [(a, b) for a, b in arrows() if room(a) in below and room(b) in ("data", "images")] == []


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in arrows():
        graph.setdefault(module, set()).add(imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_exceptions_are_inside_functions_and_in_use() -> None:
    for module, imported in EXCEPTIONS:
        tree = ast.parse(sources()[module].read_text(encoding="utf-8"))
        head = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not any(room(name) == imported for name in head if name), f"{module} imports {imported} at its head"
        assert any(room(name) == imported for name in imports(module)), f"{module} no longer imports {imported}"


def test_no_room_bears_the_name_of_a_command() -> None:
    assert COMMANDS.isdisjoint(lazy.modules("mmfusion"))


def test_no_public_name_is_hidden_by_a_module() -> None:
    for package in (name for name, path in sources().items() if path.name == "__init__.py"):
        __import__(package)
        names = lazy.listed(package)
        hidden = [name for name, home in names.items() if name in lazy.modules(package) and home != package]
        assert hidden == [], f"{package} exports names that its modules hide"


@pytest.mark.parametrize("module", sources())
def test_long_files_say_why(module: str) -> None:
    """A file above 400 lines gives its reason in its docstring, in a sentence with ``long because``."""
    text = sources()[module].read_text(encoding="utf-8")
    if text.count("\n") > LONGEST:
        assert "long because" in (ast.get_docstring(ast.parse(text)) or ""), f"{module} has {text.count(chr(10))} lines"
