from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmfusion
from mmfusion.cli import main as cli
from mmfusion.cli.config import InfoConfig
from mmfusion.cli.parsing import parse
from mmfusion.data import make_demo
from mmfusion.evaluation.run import _beside_model
from mmfusion.training.config import RunConfig

ROOT = Path(__file__).parents[1]

#: options that dataset.views requires.
OF_STUDIES = ("--dataset.study_column", "patient", "--dataset.view_column", "sequence")


def options(*argv: str) -> RunConfig:
    return parse("train", argv)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Error line of a failing command."""
    assert cli.main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err.strip()


def test_dotted_overrides_reach_the_configuration():
    config = options(
        *("--data", "x", "--model.fusion", "gated", "--train.lr", "1e-4", "--model.fusion_args.num_layers", "2"),
        *("--train.resume", "--train.trackers", "[a, b]", "--on-bad-row", "skip", "--train.channels_last=true"),
    )
    assert isinstance(config, RunConfig)
    assert config.model.fusion == "gated" and config.model.fusion_args == {"num_layers": 2}
    assert config.train.lr == 1e-4 and config.train.resume is True and config.train.trackers == ["a", "b"]
    assert config.train.channels_last is True and config.train.freeze_encoders is False
    assert config.dataset.on_bad_row == "skip" and config.dataset.label_column == "label"


@pytest.mark.parametrize("order", [0, 1])
def test_arguments_beat_the_file_wherever_they_stand(tmp_path, order):
    file = tmp_path / "run.yaml"
    file.write_text("data: there\nseed: 3\ntrain: {lr: 1e-3, epochs: 2}\nmodel:\n  head_args: {hidden: 8}\n")
    parts = [["--config", str(file)], ["--data", "here", "--train.lr", "1e-4"]]
    config = options(*parts[order], *parts[1 - order])
    assert (config.data, config.seed, config.train.lr, config.train.epochs) == ("here", 3, 1e-4, 2)
    assert config.model.head_args == {"hidden": 8}


@pytest.mark.parametrize("flag", [["--train.resume"], ["--train.resume", "true"], ["--train.resume=true"]])
def test_flags_with_and_without_a_value(flag):
    assert options("--data", "x", *flag, "--seed", "1").train.resume is True
    assert options("--data", "x", "--train.resume", "false").train.resume is False


@pytest.mark.parametrize("words", [["a", "b"], ["[a, b]"], ['["a", "b"]']])
def test_a_list_is_its_words(words):
    config = options("--dataset.views", *words, *OF_STUDIES, "--data", "x")
    assert (config.dataset.views, config.data) == (["a", "b"], "x")


def test_items_keep_their_type():
    base = ["--run.data", "x"]
    assert parse("compare", [*base, "--seeds", "3", "4", "--jobs", "2"]).seeds == [3, 4]
    assert options("--data", "x", *OF_STUDIES, "--dataset.views", "1", "null").dataset.views == ["1", "null"]
    assert options("--data", "x", "--dataset.missing_values", "[]").dataset.missing_values == []
    columns = ["--narrative.leaking_columns", "null"]
    assert parse("narrate", ["--data", "x", "--output", "o", *columns]).narrative.leaking_columns is None


def test_one_item_in_a_file_needs_no_brackets(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfusion.cli.parsing._saved_dataset", lambda parsed: {})
    file = tmp_path / "soup.yaml"
    file.write_text("models: a\noutput: o\n")
    assert parse("soup", ["--config", str(file)]).models == ["a"]


@pytest.mark.parametrize("spelling", ["--dataset.on_bad_row", "--on_bad_row", "--on-bad-row"])
def test_spellings_of_one_option(spelling):
    assert options("--data", "x", spelling, "skip").dataset.on_bad_row == "skip"
    assert options("--data", "x", f"{spelling}=skip").dataset.on_bad_row == "skip"


def test_a_flag_takes_no_argument_of_the_command():
    for argv in (["--pretrained", "mibf*"], ["mibf*", "--pretrained"], ["--pretrained", "true", "mibf*"]):
        config = parse("list", argv)
        assert (config.pattern, config.pretrained) == ("mibf*", True)


def test_plugins_are_imported_first(tmp_path, monkeypatch):
    for name in ("plugin_of_the_words", "plugin_of_the_file", "plugin_of_the_run"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    run, study = tmp_path / "run.yaml", tmp_path / "study.yaml"
    run.write_text("data: there\nplugins: [plugin_of_the_run]\ntrain: {lr: 1}\n")
    study.write_text("run: run.yaml\nplugins: plugin_of_the_file\n")
    config = parse("compare", ["--config", str(study)])
    assert config.run.data == "there" and config.run.train.lr == 1
    assert {"plugin_of_the_run", "plugin_of_the_file"} <= sys.modules.keys()
    # the runs get both, so that the workers of a study and its best run import them
    assert config.run.plugins == ["plugin_of_the_file", "plugin_of_the_run"]
    for name in ("plugin_of_the_run", "plugin_of_the_file"):
        sys.modules.pop(name)
    parse("audit", ["--config", str(run), "--plugins", "plugin_of_the_words", "plugin_of_the_file"])
    assert {"plugin_of_the_words", "plugin_of_the_file"} <= sys.modules.keys()
    assert "plugin_of_the_run" not in sys.modules  # a list in the arguments replaces that of the file


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean 'train'"]),
        (["--verbose"], ["'--verbose'"]),
        (["train"], ["missing data"]),
        (["train", "--data", "x", "--train.lrr", "3"], ["--train.lrr", "did you mean --train.lr"]),
        (["train", "--data", "x", "--train.epoch", "3"], ["did you mean --train.epochs"]),
        (["train", "--data", "x", "--on-bad-rows", "skip"], ["did you mean --on-bad-row"]),
        (["train", "--data", "x", "--train.lr", "fast"], ["--train.lr expects float; got 'fast'"]),
        (["train", "--data", "x", "--model.dim", "3.5"], ["--model.dim expects int or null; got '3.5'"]),
        (["train", "--data", "x", "--config", "none.yaml"], ["none.yaml"]),
        (["train", "--data", "x", "stray"], ["stray"]),
        (["info"], ["missing name"]),
        (["soup"], ["missing models, output"]),
        (["compare"], ["missing run.data"]),
        (["soup", "--models", "a,b", "--output", "o"], ["--models a,b: write the items as words, --models a b."]),
        (["soup", "--models", "--output", "o"], ["--models", "expected at least one argument"]),
        (["compare", "--run.data", "x", "--seeds", "a", "b"], ["--seeds expects list[int]; got 'a'."]),
        (["train", "--data", "x", "--train.resume", "perhaps"], ["--train.resume expects bool; got 'perhaps'."]),
        (["train", "--data", "x", "--plugins", "no_such_module"], ["no_such_module"]),
    ],
)
def test_bad_arguments_are_one_line(capsys, argv, words):
    line = fails(capsys, *argv)
    assert line.startswith(f"mmfusion {argv[0]}: error: " if argv[0] in cli.COMMANDS else "mmfusion: error: ")
    for word in words:
        assert word in line or word in line.lower()


def test_an_unknown_name_in_a_file_is_answered_with_the_nearest(capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text("train: {lrr: 3}")
    line = fails(capsys, "train", "--data", "x", "--config", str(tmp_path / "bad.yaml"))
    assert line == "mmfusion train: error: Unknown argument train.lrr; did you mean --train.lr?"


@pytest.mark.parametrize("text", ["train: {lrr: 3}", "train: [lr: 3", "train: {lr: fast}", "lr: 3"])
def test_bad_files_are_one_line(capsys, tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    fails(capsys, "train", "--data", "x", "--config", str(tmp_path / "bad.yaml"))


def test_library_errors_are_one_line_and_traceback_on_demand(capsys, monkeypatch):
    def broken(config: InfoConfig) -> None:
        """Broken."""
        raise ValueError("first\n  second")

    monkeypatch.setattr("mmfusion.cli.info.info", broken)
    assert fails(capsys, "info", "x") == "mmfusion info: error: first second"
    monkeypatch.setenv("MMFUSION_DEBUG", "1")
    with pytest.raises(ValueError, match="first"):
        cli.main(["info", "x"])


def test_own_faults_keep_their_traceback(monkeypatch):
    def broken(config: InfoConfig) -> None:
        """Broken."""
        raise ZeroDivisionError

    monkeypatch.setattr("mmfusion.cli.info.info", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", "x"])


def test_version_and_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mmfusion {mmfusion.__version__}\n"
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])
    assert "Share of the steps for the linear warm-up" in " ".join(capsys.readouterr().out.split())


def test_a_reader_that_leaves_early_is_no_error():
    reads, writes = os.pipe()
    os.close(reads)
    code = "import sys; from mmfusion.cli import main as cli; cli._overview = print; sys.exit(cli.main([]))"
    left = subprocess.run([sys.executable, "-c", code], stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (left.returncode, left.stderr) == (141, "")


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as with >&-
    assert cli.main([]) == 0


def test_help_shows_lists_as_they_are_written(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["soup", "--help"])
    assert "--models ITEM [ITEM ...]\n" in capsys.readouterr().out


def test_help_imports_no_heavy_library():
    code = (
        "import sys\nfrom mmfusion.cli.main import COMMANDS, main\n"
        "for argv in [['--help'], *([name, '--help'] for name in COMMANDS)]:\n"
        "    try:\n        main(argv)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'transformers', 'timm', 'torchvision', 'pandas', 'sklearn', 'matplotlib', 'numpy', 'PIL'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().endswith("HEAVY []")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("local-dir:runs/first", "runs/first/evaluation/test"),
        ("local-dir:runs/first/best", "runs/first/evaluation/test"),
        ("hf-hub:org/name@v1", "runs/hf-hub-org-name-v1/evaluation/test"),
        ("mibf_lite0.ham10000", "runs/mibf_lite0.ham10000/evaluation/test"),
    ],
)
def test_results_lie_beside_the_model(model, folder):
    assert _beside_model([model], "evaluation/test") == Path(folder)


def test_a_training_file_serves_other_commands(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: there\noutput: runs/x\nseed: 3\ndataset: {label_column: dx}\nmodel: {name: m}\ntrain: {lr: 1}\n"
    )
    config = parse("audit", ["--config", str(file), "--dataset.table", "t.csv"])
    assert (config.data, config.seed, config.output) == ("there", 3, "audit")
    assert (config.dataset.label_column, config.dataset.table) == ("dx", "t.csv")
    config = parse("split", [f"--config={file}", "--output", "split.csv"])
    assert config.output == "split.csv" and config.dataset.label_column == "dx"


def test_other_mistakes_in_a_file_still_count(capsys, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: there\nmodel: {name: m}\ndataset: {lable_column: dx}\n")
    assert "lable_column" in fails(capsys, "audit", "--config", str(file))
    file.write_text("data: there\nmodel: {name: m}\ndatset: {label_column: dx}\n")
    assert "datset" in fails(capsys, "audit", "--config", str(file))
    file.write_text("data: there\nlr: 3\n")
    assert "lr" in fails(capsys, "audit", "--config", str(file))
    assert "gone.yaml" in fails(capsys, "audit", "--config", "gone.yaml")


def test_split_then_audit(capsys, tmp_path):
    data = make_demo(tmp_path / "data", n=60)
    dataset = ("--dataset.group_column", "patient_id")
    out = str(tmp_path / "folds.csv")
    assert cli.main(["split", "--data", str(data), "--output", out, "--folds", "4", *dataset]) == 0
    assert "groups, none divided" in capsys.readouterr().out
    fails(capsys, "split", "--data", str(data), "--output", out, *dataset)
    fold = ("--dataset.split_table", out, "--dataset.fold_column", "fold", "--dataset.folds", "{test: [0], val: [1]}")
    assert cli.main(["audit", "--data", str(data), "--output", str(tmp_path / "audit"), *fold, *dataset]) == 0
    said = capsys.readouterr().out
    assert "split of the data (train" in said and "class_tail" in said
    assert (tmp_path / "audit" / "audit.md").is_file() and (tmp_path / "audit" / "audit.json").is_file()


def test_a_base_run_that_is_not_there_is_named(tmp_path, capsys):
    study = tmp_path / "study.yaml"
    study.write_text("run: no_such.yaml\nrows: {a: {train.lr: 1.0e-3}}\n")
    assert fails(capsys, "compare", "--config", str(study)) == (
        "mmfusion compare: error: --run: no_such.yaml cannot be read; a path in a file is relative to that file."
    )
