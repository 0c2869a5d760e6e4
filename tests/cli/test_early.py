"""Errors are reported in one line before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmfusion import registry
from mmfusion.cli import main as cli
from mmfusion.data import make_demo

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "timm", "transformers", "accelerate", "pandas", "sklearn", "matplotlib"}
WEIGHTS = ("--model", "mibf_lite0.ham10000")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("early") / "data", n=60)


#: command -> part of the error; DATA is the demo's folder.
MISTAKES = {
    ("train", "--data", "nowhere"): "The data set nowhere does not exist.",
    ("train", "--data", "DATA", "--train.loss", "foccal"): "Unknown loss 'foccal'; did you mean 'focal'?",
    ("train", "--data", "DATA", "--train.metric", "acuracy"): "Unknown metric 'acuracy'; did you mean 'accuracy'",
    ("train", "--data", "DATA", "--model.name", "mibf_lite"): "Unknown model 'mibf_lite'; did you mean 'mibf_lite0'",
    ("train", "--data", "DATA", "--model.fusion", "gatd"): "Unknown fusion 'gatd'; did you mean 'gated'",
    ("train", "--data", "DATA", "--model.name", "local-dir:no"): "'local-dir:no': the folder no does not exist.",
    ("train", "--data", "DATA", "--dataset.label_column", "dx"): "has no column 'dx' (dataset.label_column); it has ",
    ("train", "--data", "DATA", "--dataset.text_template", "{agee}"): "no column 'agee' (dataset.text_template)",
    (
        "train",
        "--data",
        "DATA",
        "--dataset.numeric_columns",
        "agee",
    ): "no column 'agee' (named as an input",
    ("train", "--data", "DATA", "--dataset.image_root", "pics"): "(dataset.image_root) does not exist.",
    ("train", "--data", "DATA", "--dataset.split_table", "s.csv"): "The split table s.csv (dataset.split_table)",
    ("evaluate", *WEIGHTS, "--data", "nowhere"): "The data set nowhere does not exist.",
    ("evaluate", *WEIGHTS, "--data", "DATA", "--split", "tset"): "Unknown split 'tset'; it is one of train, val, test",
    (
        "evaluate",
        *WEIGHTS,
        "--data",
        "DATA",
        "--subgroups",
        "local",
        "localization",
        "gendre:10",
        "--dataset.columns",
        "{site: localization}",
    ): "has no column 'local', 'gendre'; it has ",
    ("predict", *WEIGHTS, "--data", "nowhere"): "The data set nowhere does not exist.",
    (
        "predict",
        "--model",
        "no_run",
        "--data",
        "DATA",
    ): "multiview_lite0.spider_pfirrmann. There is also no folder of that name.",
    (
        "predict",
        "--model",
        "mibf_lite0.ham",
        "--data",
        "DATA",
    ): "available: image_lite0.ham10000, mibf_lite0.ham10000, mibf_v2_lite0.ham10000, multiview_lite0.",
    ("explain", *WEIGHTS, "--data", "nowhere"): "The data set nowhere does not exist.",
    ("export", "--model", "local-dir:no", "--output", "o"): "'local-dir:no': the folder no does not exist.",
    ("audit", "--data", "nowhere"): "The data set nowhere does not exist.",
    ("split", "--data", "DATA", "--output", "o", "--dataset.group_column", "lesion"): "(dataset.group_column)",
    ("narrate", "--data", "nowhere", "--output", "o"): "The data set nowhere does not exist.",
    ("compare", "--run.data", "nowhere", "--vary", "{train.lr: [1.0e-3, 1.0e-4]}"): "The data set nowhere",
    ("info", "--name", "runs/a"): "Unknown argument --name; it is mmfusion info NAME.",
    ("info", "--model", "runs/a"): "Unknown argument --model; it is mmfusion info NAME.",
    ("compare", "runs/a", "runs/b"): "runs/a runs/b; values follow their options, such as --runs VALUE.",
    ("sweep", "--run.data", "nowhere", "--space", "{train.lr: [1.0e-3, 1.0e-4]}"): "The data set nowhere",
}


@pytest.mark.parametrize("argv", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_before_any_command_begins(
    argv: tuple[str, ...], data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmfusion.cli.calls.resolve_name", lambda name: pytest.fail(f"{name} was imported"))
    assert cli.main([str(data) if word == "DATA" else word for word in argv]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"mmfusion {argv[0]}: error: ") and line.count("\n") == 1
    assert MISTAKES[argv] in line


def test_no_heavy_library_is_imported_for_it(data: Path) -> None:
    code = (
        "import sys\nfrom mmfusion.cli.main import main\n"
        f"main(['train', '--data', {str(data)!r}, '--dataset.label_column', 'dx'])\n"
        f"main(['train', '--data', {str(data)!r}, '--model.fusion', 'gatd'])\n"
        f"main(['evaluate', '--model', 'mibf_lite0.ham10000', '--data', 'nowhere'])\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]" and done.stderr.count("error: ") == 3


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_names_in_the_sources_are_those_that_are_registered(kind: str) -> None:
    with registry.temporarily():
        written, known = registry._written(kind), registry.names(kind)
        built_in = [name for name in known if registry.origin(kind, name) is None]
    assert all(any(registry.matches(name, pattern) for pattern in written) for name in built_in)
    assert {name for name in written if "*" not in name} <= set(built_in)


def test_a_part_of_a_plugin_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry.temporarily():
        registry.register("loss", "of_my_own")(type("Mine", (), {}))
        registry.check_written("loss", "of_my_own")
    with pytest.raises(ValueError, match="Unknown loss 'of_my_own'"):
        registry.check_written("loss", "of_my_own")


def test_a_split_that_no_row_has(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = (data / "metadata.csv").read_text().replace(",test,", ",train,").replace(",test\n", ",train\n")
    (tmp_path / "metadata.csv").write_text(table)
    (tmp_path / "images").mkdir()
    argv = ["evaluate", *WEIGHTS, "--data", str(tmp_path), "--dataset.group_column", "patient_id"]
    assert cli.main(argv) == 2
    assert "metadata.csv has no rows of the split 'test'; it has train (" in capsys.readouterr().err
