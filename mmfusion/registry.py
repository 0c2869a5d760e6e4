"""One registry for every named part: towers, blocks, heads, losses, models, metrics and more.

Importing the registry loads no tensor library. The built-in parts of a kind are imported on first access: every module
of its package in alphabetical order, so that new files are found. User-defined parts come from plugins
(:func:`load_plugins`) and from installed packages (entry points of :data:`GROUP`).
"""

import fnmatch
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmfusion.lazy import load_modules
from mmfusion.names import did_you_mean, natural_key

T = TypeVar("T")

#: Kind -> package (all its modules) or module that registers its built-in parts.
KINDS: dict[str, str] = {
    "fusion": "mmfusion.fusion",
    "head": "mmfusion.heads",
    "aggregator": "mmfusion.aggregators",
    "image_tower": "mmfusion.towers",
    "text_tower": "mmfusion.towers",
    "table_tower": "mmfusion.towers",
    "tower": "mmfusion.towers",
    "loss": "mmfusion.losses",
    "task": "mmfusion.tasks",
    "metric": "mmfusion.evaluation.metrics",
    "model": "mmfusion.models",
    "augmentation": "mmfusion.images.augmentations",
    "retriever": "mmfusion.narrative.retrieval",
}

#: Entry-point group of installed packages with parts.
GROUP = "mmfusion.parts"


class _Part(NamedTuple):
    value: Any
    module: str  # module that registered it
    plugin: str | None  # None for a built-in part

    @property
    def path(self) -> str:
        return f"{self.module}.{getattr(self.value, '__qualname__', type(self.value).__qualname__)}"


_parts: dict[str, dict[str, _Part]] = {kind: {} for kind in KINDS}
#: Plugin being imported.
_plugin: str | None = None


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"Unknown kind {kind!r}; the kinds are {', '.join(KINDS)}.")


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class or function decorator that makes a part available by name.

    Args:
        kind: One of :data:`KINDS`.
        name: The name users type. Registering the same object again is allowed (module reloads); taking the name of
            another part is not.

    Raises:
        ValueError: The kind is unknown, or the name is taken by another part.
    """
    _check_kind(kind)
    caller = sys._getframe(1).f_globals.get("__name__", "__main__")

    def decorate(part: T) -> T:
        # an object has the module of its class, which may differ from the one that created it
        module = part.__module__ if inspect.isclass(part) or inspect.isfunction(part) else caller
        is_built_in = module.startswith("mmfusion.")
        if not is_built_in:
            load_modules(KINDS[kind])  # built-in names are registered first
        new, taken = _Part(part, module, None if is_built_in else _plugin or module), _parts[kind].get(name)
        if taken is not None and taken.value is not part and taken.path != new.path:
            raise ValueError(f"The {kind} name {name!r} is taken by {taken.path}; choose another name.")
        _parts[kind][name] = new
        return part

    return decorate


def unregister(kind: str, name: str) -> None:
    """Remove a part; its name becomes available.

    Raises:
        ValueError: The kind or name does not exist.
    """
    get(kind, name)
    del _parts[kind][name]


@contextmanager
def temporarily() -> Iterator[None]:
    """Context that restores the registry at its end; built-in parts imported inside stay."""
    before = {kind: dict(named) for kind, named in _parts.items()}
    try:
        yield
    finally:
        for kind, named in _parts.items():
            built_in = {name: part for name, part in named.items() if part.plugin is None}
            _parts[kind] = built_in | before[kind]


def names(kind: str, pattern: str = "*") -> list[str]:
    """Registered names of a kind that match a wildcard pattern, in natural order.

    Raises:
        ValueError: The kind is unknown.
    """
    _check_kind(kind)
    load_modules(KINDS[kind])
    return sorted(fnmatch.filter(_parts[kind], pattern), key=natural_key)


def get(kind: str, name: str) -> Any:
    """The class or function registered under a name.

    Raises:
        ValueError: The name does not exist, not even in an installed plugin; the message gives similar names.
    """
    failed = "" if name in names(kind) else _load_entry_points()
    known = names(kind)
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}; {did_you_mean(name, known)}{failed}")
    return _parts[kind][name].value


def check_written(kind: str, name: str) -> None:
    """Reject a name that no part has, like :func:`get`, but without importing the built-in parts.

    With installed plugins, nothing is rejected.

    Raises:
        ValueError: The name does not exist; the message gives similar names.
    """
    known = _written(kind)
    if name in _parts[kind] or any(matches(name, pattern) for pattern in known):
        return
    from importlib.metadata import entry_points

    if not entry_points(group=GROUP):
        raise ValueError(f"Unknown {kind} {name!r}; {did_you_mean(name, [each for each in known if '*' not in each])}")


@functools.cache
def _written(kind: str) -> list[str]:
    """Names of a kind's built-in parts in the source code, with ``*`` for computed ones."""
    import ast

    spec = importlib.util.find_spec(KINDS[kind])
    if spec is None or spec.origin is None:
        return ["*"]
    origin, found = Path(spec.origin), set()
    for file in origin.parent.glob("[!_]*.py") if origin.name == "__init__.py" else [origin]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            args = [_literal(arg) for arg in node.args] if isinstance(node, ast.Call) else []
            if called == "arch":
                args = ["model", args[0]]
            if called in ("register", "arch") and len(args) == 2 and args[0] in (kind, "*"):
                found.add(args[1])
    return sorted(found, key=natural_key)


def _literal(node: Any) -> str:
    """The text of an expression, with ``*`` for unknown parts."""
    parts = getattr(node, "values", [node])  # in an f-string
    return "".join(part.value if isinstance(getattr(part, "value", None), str) else "*" for part in parts)


def is_known(kind: str, name: str) -> bool:
    """Whether a name is registered, also by an installed plugin."""
    if name not in names(kind):
        _load_entry_points()
    return name in names(kind)


def keywords(part: Callable[..., Any]) -> list[str]:
    """Names of a part's keywords."""
    return [
        p.name for p in inspect.signature(part).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


def create(kind: str, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Build the part registered under ``name``.

    Raises:
        ValueError: The name does not exist.
        TypeError: A keyword is unknown or a required one is missing; the message names the part.
    """
    part = get(kind, name)
    try:
        inspect.signature(part).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{kind} {name!r}: {error}; it takes {', '.join(keywords(part))}.") from None
    return part(*args, **kwargs)


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches a shell wildcard."""
    return fnmatch.fnmatchcase(name, pattern)


def load_plugins(plugins: Iterable[str]) -> None:
    """Import modules that register user-defined parts.

    Args:
        plugins: Module names as in an import statement.

    Raises:
        ValueError: A name is not a module name, or the module does not exist.
        ImportError: A module raises on import; the message gives the cause.
    """
    for plugin in plugins:
        if plugin.endswith(".py"):
            path = Path(plugin)
            how = f"write {path.stem}, and set PYTHONPATH={path.parent} so that it is found"
            raise ValueError(f"plugins: {plugin!r} is not a module name; {how}.")
        if not all(part.isidentifier() for part in plugin.split(".")):
            raise ValueError(
                f"plugins: {plugin!r} is not a module name; write it as in an import, e.g. my_package.blocks."
            )
        try:
            with _importing(plugin):
                importlib.import_module(plugin)
        except Exception as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is not None and f"{plugin}.".startswith(f"{missing}."):
                raise ValueError(
                    f"plugins: the module {plugin!r} does not exist; install it, or add its folder to PYTHONPATH."
                ) from None
            raise ImportError(f"plugins: importing {plugin!r} failed: {_told(error)}; fix or remove it.") from error


@contextmanager
def _importing(plugin: str) -> Iterator[None]:
    """Attribute all parts registered inside to a plugin, whichever of its modules registers them."""
    global _plugin
    before, _plugin = _plugin, _plugin or plugin
    try:
        yield
    finally:
        _plugin = before


def _told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@functools.cache
def _load_entry_points() -> str:
    """Import the entry points of :data:`GROUP`; returns failures as the end of an error message."""
    from importlib.metadata import entry_points

    failed = ""
    for entry in entry_points(group=GROUP):
        try:
            with _importing(entry.module):
                entry.load()
        except Exception as error:
            failed += f" (The plugin {entry.name!r} = {entry.value!r} of {GROUP} failed: {_told(error)}.)"
    return failed


def origin(kind: str, name: str) -> str | None:
    """Module name of the plugin that registered a part; None for a built-in part."""
    get(kind, name)
    return _parts[kind][name].plugin


def missing_hint(kind: str, name: str, module: str) -> str:
    """Error message for a saved model whose part comes from a plugin that is not loaded."""
    if module == "__main__":
        return f"its {kind} {name!r} was registered in a script; register it in a module, and load that as a plugin."
    return f"its {kind} {name!r} is in the plugin {module!r}; add --plugins {module} if you trust that module."
