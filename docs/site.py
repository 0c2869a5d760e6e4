"""Hooks of `mkdocs.yml`: reference pages from the public names, and pages and links outside `docs`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

from mmfusion import lazy
from mmfusion.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
#: pages outside `docs` to include in the site.
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
#: packages with a reference page; `mmfusion` has the names that users import most.
PACKAGES = (
    *("mmfusion", "models", "fusion", "heads", "losses", "aggregators", "towers", "layers"),
    *("data", "training", "evaluation", "explanation", "inference", "serving", "narrative", "auditing"),
)
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """Add the reference pages to the navigation."""
    (section,) = (section for section in config.nav if "Reference" in section)
    section["Reference"] = [{"Commands": "reference/commands.md"}]
    section["Reference"] += [{_title(package): f"reference/{package}.md"} for package in PACKAGES]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages, and the files outside `docs` that pages link to."""
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    for package in PACKAGES:
        files.append(File.generated(config, f"reference/{package}.md", content=_reference(package)))
    linked: set[str] = set()
    for name in OUTSIDE:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
        linked.update(target for target, _ in _outside(text, ROOT))
    for file in files.documentation_pages():
        if file.abs_src_path is not None:
            linked.update(target for target, _ in _outside(file.content_string, Path(file.abs_src_path).parent))
    for target in sorted(linked - set(OUTSIDE)):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Redirect links to files outside `docs` to their copies in the site."""
    own = page.file.src_uri
    folder = ROOT if own in OUTSIDE else (ROOT / "docs" / own).parent
    for target, written in _outside(markdown, folder):
        copy = target if target in OUTSIDE else f"files/{target}"
        markdown = markdown.replace(f"]({written}", f"]({relpath(copy, str(PurePosixPath(own).parent))}")
    if own in OUTSIDE:
        markdown = markdown.replace("](docs/", "](")
    return markdown


def _outside(text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """(path below the root, link as written) for each link of a page to a file outside `docs`."""
    for _, target, _ in _LINK.findall(text):
        path = Path(normpath(folder / target))
        if path.is_file() and not path.is_relative_to(ROOT / "docs"):
            yield path.relative_to(ROOT).as_posix(), target


@cache
def _places() -> dict[str, tuple[str, str]]:
    """Full name of an object -> its page and its name there; each object is on one page only."""
    places: dict[str, tuple[str, str]] = {}
    for package in (*PACKAGES[1:], PACKAGES[0]):  # the names of `mmfusion` live in a package too
        module = importlib.import_module(_title(package))
        parts = any(Path(module.__path__[0]).glob("__init__.pyi"))
        for name in lazy.public(module.__name__, parts=parts):
            value = getattr(module, name)
            if callable(value):
                places.setdefault(f"{value.__module__}.{value.__qualname__}", (package, name))
    return places


def _title(package: str) -> str:
    return package if package == "mmfusion" else f"mmfusion.{package}"


def _reference(package: str) -> str:
    """The page of a package: its description and each of its public names."""
    module = importlib.import_module(_title(package))
    lines = [f"# {_title(package)}", "", module.__doc__ or "", ""]
    here = {name: full for full, (place, name) in _places().items() if place == package}
    for name in sorted(set(lazy.public(module.__name__)) - here.keys()):
        if not callable(value := getattr(module, name)):
            continue
        full = f"{value.__module__}.{value.__qualname__}"
        lines += [f"- [`{name}`]({_places()[full][0]}.md#{full})"]
    for name in sorted(here, key=str.lower):
        lines += ["", f"::: {here[name]}", "    options:", f"      heading: {name}"]
    return "\n".join(lines)


def _commands() -> str:
    """The page of the commands: description and options of each."""
    lines = [
        "# Commands",
        "",
        "Every option can also be in a YAML file (`--config FILE.yaml`), where a dot means a section.",
        "",
    ]
    for name, command in COMMANDS.items():
        config = resolve_name(f"mmfusion.{command.config}")
        lines += [f"## mmfusion {name}", "", command.help, ""]
        full = f"{config.__module__}.{config.__qualname__}"
        if full in _places():
            lines += [f"Options: [`{config.__name__}`]({_places()[full][0]}.md#{full})", ""]
            continue
        lines += [f"::: {full}", "    options:", "      show_root_heading: false", "      show_root_toc_entry: false"]
        lines += ["      members: false", "      merge_init_into_class: false", ""]
    return "\n".join(lines)
