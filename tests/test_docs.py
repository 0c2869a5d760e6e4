"""The pages match the code: snippets compile (and run where stated), links resolve, commands exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from stage import names_of, run_with_hub, set_up, smaller

import mmfusion
from mmfusion import registry

ROOT = Path(mmfusion.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
#: slow snippets: encoders of a hundred million weights, exports, a training run, a separate process for the Hub.
SLOW = re.compile(r"resnet50|export_model|train\(|org/name|compare\(|FusionClassifier")


def snippets(*languages: str) -> list[tuple[str, str, str]]:
    """Code, page and "page:line" of every fenced block of some languages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match["language"] in languages:
                name = str(page.relative_to(ROOT))
                found.append((match["code"], name, f"{name}:{text.count(chr(10), 0, match.start('code')) + 1}"))
    return found


def python_snippets() -> list[object]:
    return [
        pytest.param(code, page, id=where, marks=[pytest.mark.slow] if SLOW.search(code) else [])
        for code, page, where in snippets("python")
    ]


def shell_lines() -> list[object]:
    """Every line in shell blocks that begins with ``mmfusion``, with continued lines joined."""
    found = []
    for code, _, where in snippets("bash"):
        lines = [line for line in code.replace("\\\n", " ").splitlines() if line.startswith("mmfusion ")]
        found += [pytest.param(line, id=f"{where}-{i}") for i, line in enumerate(lines)]
    return found


def anchors(page: Path) -> set[str]:
    """GitHub anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="session")
def stage(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the pages refer to."""
    root = tmp_path_factory.mktemp("pages") / "stage"
    set_up(root, toy)
    return root


@pytest.fixture
def on_stage(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the stage."""
    folder = tmp_path / "here"
    shutil.copytree(stage, folder, copy_function=os.link, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("code", "page"), python_snippets())
def test_python_snippet(code: str, page: str, on_stage: Path) -> None:
    """Every snippet runs with the models and images of the pages and the names defined before it."""
    code = smaller(code)
    if "hub" in code and "org/name" in code:
        return run_with_hub(code, on_stage)
    with registry.temporarily():
        exec(compile(code, page, "exec"), {"__name__": "snippet", "mmfusion": mmfusion, **names_of(page)})


@pytest.mark.parametrize("line", shell_lines())
def test_shell_line(line: str, on_stage: Path) -> None:
    """The command line accepts it: command, options and their types."""
    from mmfusion.cli.parsing import parse

    shutil.copytree("runs/first", "runs/first-onnx")
    command, *arguments = shlex.split(line, comments=True)[1:]
    with registry.temporarily():
        parse(command, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_escapes_the_tests(page: Path) -> None:
    """Every fence begins a line and has a checked language; commands are only in shell blocks."""
    text = page.read_text()
    blocks = list(FENCE.finditer(text))
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(blocks)
    known = {"python", "py", "bash", "yaml", "toml", "dockerfile", "mermaid", "text", ""}
    assert {block["language"] for block in blocks} <= known
    for block in blocks:
        if block["language"] == "py":  # needs a server
            compile(block["code"], page, "exec")
    plain = [block["code"] for block in blocks if block["language"] in ("text", "")]
    assert not [code for code in plain if re.search(r"^(mmfusion [a-z]|import |>>> |\$ )", code, re.MULTILINE)]


def test_lines_of_prose_fit() -> None:
    """Prose has at most 100 characters per line; tables and code may be wider."""
    wide = {
        f"{page.name}: {line}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for line in FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
        if len(line) > 100 and not line.lstrip().startswith("|")
    }
    assert not wide


def test_the_site_leads_to_every_page() -> None:
    """The navigation contains every page; otherwise the site cannot be built."""
    listed = set(re.findall(r"[\w/]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed - {"CONTRIBUTING.md", "CHANGELOG.md"} == {
        page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")
    }


@pytest.mark.parametrize("code", [pytest.param(code, id=where) for code, _, where in snippets("yaml")])
def test_yaml_snippet(code: str) -> None:
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
    """Every ``mmfusion <command>`` of the pages, in shell blocks and in text."""
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
    """The command line accepts it: options and types; model and loss exist."""
    from mmfusion.cli.parsing import parse

    if "run" in yaml.safe_load(path.read_text()):
        config = parse("compare", ["--config", str(path)]).run
    else:
        config = parse("train", ["--config", str(path)])
    assert config.model.name in mmfusion.list_models()
    assert config.train.loss in mmfusion.list_components("loss")
