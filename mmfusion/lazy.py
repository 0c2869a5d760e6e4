"""Imports of a package's names and modules on first use (PEP 562), so that ``import`` loads no heavy library.

The ``__init__.py`` of a package ends with ``__getattr__, __dir__ = attach(__name__)``. Public names are listed once,
as imports under ``if TYPE_CHECKING:``, which type checkers read too (``from x import name as name`` re-exports).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

_LOAD = "create_model('local-dir:FOLDER'), or Predictor.from_pretrained(FOLDER), loads a model"
_INPUTS = (
    "Predictor.from_pretrained(NAME).processor makes the inputs of a model, model(**processor(images=..., text=...))"
)

#: Name in other libraries -> hint in the error message, for all packages.
ELSEWHERE = {
    "AutoImageProcessor": _INPUTS,
    "AutoModel": _LOAD,
    "AutoProcessor": "Processor.from_pretrained(FOLDER) loads the processor of a model",
    "AutoTokenizer": _INPUTS,
    "Trainer": "use mmfusion.train; the Trainer of transformers also accepts models",
    "create_dataset": "mmfusion.data has MultimodalDataset(read_cases(DATA).resolve(), processor)",
    "create_loader": "torch's DataLoader(rows, collate_fn=rows.collate) loads a mmfusion.data.MultimodalDataset",
    "create_transform": _INPUTS,
    "default_cfg": "model.pretrained_cfg, or get_pretrained_cfg(NAME), has input size and normalization",
    "list_modules": "list_models() and list_components(KIND) list what there is",
    "load_model": _LOAD,
    "pipeline": "Predictor.from_pretrained(NAME).predict(rows) predicts",
    "resolve_data_config": "model.pretrained_cfg has input size and normalization, as timm's function reads them",
    "resolve_model_data_config": "timm.data.resolve_model_data_config(model) takes a model",
    "save_model": "save_pretrained(model, FOLDER, processor) saves a model",
}


def attach(package: str, *, parts: bool = False) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package: its public names and its modules.

    Args:
        package: Its ``__name__``.
        parts: Also export the public classes of the package's modules, found by folder. Type checkers read them in
            ``__init__.pyi``, which ``make docs`` writes.
    """

    def find(name: str) -> Any:
        home = listed(package).get(name, package)
        if home == package and importlib.util.find_spec(f"{package}.{name}"):
            return importlib.import_module(f"{package}.{name}")
        if home == package:
            home = public(package, parts=parts)[name]
        return getattr(importlib.import_module(home), name)

    def resolve(name: str) -> Any:
        if name == "__all__":
            return sorted(public(package, parts=parts))
        if name.startswith("_"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return find(name)
        except KeyError:
            hint = f"; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}") from None

    def names() -> list[str]:
        own = [name for name in vars(sys.modules[package]) if name.startswith("__")]
        return sorted({*own, *public(package, parts=parts)})

    return resolve, names


def public(package: str, *, parts: bool = False) -> dict[str, str]:
    """Public name -> module of all that :func:`attach` exports."""
    return {**listed(package), **(classes(package) if parts else {})}


@functools.cache
def listed(package: str) -> dict[str, str]:
    """Public name -> the module that has it, from the imports under ``if TYPE_CHECKING:`` of a package's source."""
    import ast

    loader: Any = sys.modules[package].__loader__
    blocks = [node for node in ast.parse(loader.get_source(package)).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def classes(package: str) -> dict[str, str]:
    """Name -> module of every public class that a module of a package defines."""
    load_modules(package)
    homes = [sys.modules[f"{package}.{name}"] for name in modules(package)]
    return {
        name: home.__name__
        for home in homes
        for name, value in vars(home).items()
        if isinstance(value, type) and value.__module__ == home.__name__ and not name.startswith("_")
    }


def modules(package: str) -> list[str]:
    """Public modules of a package (without a leading ``_``), sorted by name; [] for a module."""
    found = pkgutil.iter_modules(getattr(sys.modules[package], "__path__", ()))
    return sorted(module.name for module in found if not module.name.startswith("_"))


@functools.cache
def load_modules(package: str) -> None:
    """Import a package and its public modules, or a module; missing ones are skipped."""
    if importlib.util.find_spec(package):
        importlib.import_module(package)
        for name in modules(package):
            importlib.import_module(f"{package}.{name}")
