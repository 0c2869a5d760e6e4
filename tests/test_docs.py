"""The pages keep up with the code: snippets compile (and run where they say so), links resolve, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import mmfusion
from mmfusion import registry

ROOT = Path(mmfusion.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^(?P<run><!-- run -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(*languages: str) -> list[object]:
    """One pytest parameter per fenced block of the languages: (code, whether it is marked to be run)."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("code")) + 1
                name = f"{page.relative_to(ROOT)}:{line}"
                found.append(pytest.param(match["code"], bool(match["run"]), id=name))
    return found


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("code", "run"), snippets("python"))
def test_python_snippet(code: str, run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile(code, "snippet", "exec")
    if run:
        monkeypatch.chdir(tmp_path)
        with registry.temporarily():
            exec(program, {"__name__": "snippet"})


@pytest.mark.parametrize(("code", "run"), snippets("yaml"))
def test_yaml_snippet(code: str, run: bool) -> None:
    assert yaml.safe_load(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_relative_to(ROOT), f"{page.name} links outside the project: {target}"
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}: no such heading"


def commands_of_the_pages() -> list[str]:
    """Every ``mmfusion <command>`` of the pages, in shell blocks and in running text."""
    found = set()
    for page in PAGES:
        text = page.read_text()
        shell = "\n".join(match["code"] for match in FENCE.finditer(text) if match["language"] == "bash")
        found.update(re.findall(r"^mmfusion ([a-z]+)", shell, re.MULTILINE))
        found.update(re.findall(r"`mmfusion ([a-z]+)", FENCE.sub("", text)))
    return sorted(found)


def test_pages_name_commands() -> None:
    assert {"demo", "train", "evaluate", "predict", "info", "list"} <= set(commands_of_the_pages())


@pytest.mark.parametrize("command", commands_of_the_pages())
def test_command_exists(command: str) -> None:
    from mmfusion.cli import main as cli

    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code in (0, None)


def test_readme_catalogue_names_every_part() -> None:
    readme = (ROOT / "README.md").read_text()
    catalogue = {name for name in re.findall(r"^\| `(\w+)`", readme, re.MULTILINE)}
    for kind in ("fusion", "head", "loss"):
        assert set(mmfusion.list_components(kind)) <= catalogue, f"the README leaves out a {kind}"


def test_what_make_docs_writes_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import generate_catalogue

    for path, text in generate_catalogue.files():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)}: run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configuration(path: Path) -> None:
    """The command line takes it: every key is an option, every value of its type; the model and the loss exist."""
    from mmfusion.cli.parsing import parse

    config = parse("train", ["--config", str(path)])
    assert config.model.name in mmfusion.list_models()
    assert config.train.loss in mmfusion.list_components("loss")
