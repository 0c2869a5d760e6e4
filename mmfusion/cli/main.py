"""The command line. A command is a function of one dataclass: the dataclass is its options, the docstring its help.

This module imports no heavy library: a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from mmfusion._version import __version__
from mmfusion.data.config import DatasetConfig
from mmfusion.experiments.config import StudyConfig, SweepConfig
from mmfusion.names import did_you_mean
from mmfusion.narrative.config import NarrativeConfig
from mmfusion.settings import build
from mmfusion.training.config import RunConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from mmfusion.inference.predictor import Predictor

#: short spellings of options.
ALIASES = {"--on-bad-row": "--dataset.on_bad_row"}

_CONFIG_HELP = (
    "Options from a file; arguments win. Of a file that describes a training run, other commands take data, dataset "
    "and seed."
)

#: what a user can cause and mend; anything else is a fault of ours and shows its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, argparse.ArgumentError)


@dataclass
class DemoConfig:
    """Options of the demo.

    Attributes:
        output: folder for the data, the runs and the report.
        seed: fixes the data and the training.
    """

    output: str = "runs/demo"
    seed: int = 0


@dataclass
class EvaluateConfig:
    """Options of an evaluation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several, separated by commas,
            predict their mean.
        data: root folder of the data set.
        split: rows to evaluate on: ``train``, ``val``, ``test`` or ``all``.
        output: folder for the results; None takes ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        calibrated: apply the temperature that was fitted at the end of training, where there is one.
        subgroups: columns whose values part the rows, separated by commas; numbers go into thirds, ``age:10`` into
            bands of ten.
        validation: fit conformal sets and decision thresholds on the rows of ``val``, and try them on the others.
        coverage: wanted share of conformal sets with the true class.
        sensitivity: wanted of each class's decision threshold.
        missing_modality: also measure with the image alone and the text alone.
        report: write ``report.html``, one page with everything, validation rows and missing modalities included.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    split: str = "test"
    output: str | None = None
    batch_size: int = 64
    tta: bool = False
    calibrated: bool = True
    subgroups: str | None = None
    validation: bool = False
    coverage: float = 0.9
    sensitivity: float = 0.9
    missing_modality: bool = False
    report: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class PredictConfig:
    """Options of a prediction.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several, separated by commas,
            predict their mean.
        data: folder of images, folder of a data set, or a table (CSV, Parquet).
        output: CSV file to write.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        calibrated: apply the temperature that was fitted at the end of training, where there is one.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    output: str = "predictions.csv"
    batch_size: int = 64
    tta: bool = False
    calibrated: bool = True
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class PushConfig:
    """Options of push.

    Attributes:
        model: saved model: ``local-dir:RUN``.
        repo: ``org/name`` on the Hub; made where there is none.
        private: whether a new repository is private.
        revision: branch to push to; null takes the default one.
        overwrite_card: also replace a README.md there that mmfusion did not write.
        message: of the commit.
    """

    model: str
    repo: str
    private: bool = True
    revision: str | None = None
    overwrite_card: bool = False
    message: str = "Upload model with mmfusion"


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make, for ``Predictor.from_pretrained``; or a file, ``.onnx`` or ``.pt2``, for the program
            alone.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: largest difference of a logit or a probability from the model that is accepted.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4


@dataclass
class SoupConfig:
    """Options of soup.

    Attributes:
        models: runs of one architecture: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make.
        data: root folder of the data set that they were trained on; null averages without measuring.
        method: ``greedy`` takes the models that make the mean no worse on the validation rows, ``uniform`` all; null is
            greedy with data and uniform without.
        metric: validation figure that ``greedy`` looks at.
        batch_size: rows per step.
        dataset: how to read the data; what the first model was trained with, unless said otherwise.
    """

    models: list[str]
    output: str
    data: str | None = None
    method: str | None = None
    metric: str = "balanced_accuracy"
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class ListConfig:
    """Options of the list.

    Attributes:
        pattern: names to show, with wildcards.
        kind: what to list: model, fusion, head, aggregator, image_tower, text_tower or loss.
        pretrained: only models with trained weights, as ``arch.tag``.
    """

    pattern: str = field(default="*", metadata={"positional": True})
    kind: str = "model"
    pretrained: bool = False


@dataclass
class InfoConfig:
    """Options of info.

    Attributes:
        name: architecture, part, or trained model (``local-dir:RUN``, ``hf-hub:ORG/NAME``, ``arch.tag``).
    """

    name: str = field(metadata={"positional": True})


@dataclass
class ExplainConfig:
    """Options of an explanation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: folder of images, folder of a data set, a table, or one image.
        output: folder for a picture and a JSON file per row.
        rows: ids of the rows to explain, separated by commas; None takes the first ``limit``.
        limit: rows at most.
        label: class to explain; None takes the predicted one of each row.
        method: of the heat map: ``grad_cam``, ``integrated_gradients`` or ``occlusion``.
        level: of the backbone, for ``grad_cam``: -1 is the last, -2 the finer one before.
        text_method: of the words: ``integrated_gradients`` or ``gradient_x_input``.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    output: str = "explanations"
    rows: str | None = None
    limit: int = 16
    label: str | None = None
    method: str = "grad_cam"
    level: int = -1
    text_method: str = "integrated_gradients"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class NarrateConfig:
    """Options of narrate.

    Attributes:
        data: root folder of the data set, or its table.
        output: folder for ``image.csv``, ``response.json`` and ``narrative.json``.
        narrative: how narratives are written.
        dataset: how to read the data.
    """

    data: str
    output: str
    narrative: NarrativeConfig = field(default_factory=NarrativeConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class SplitConfig:
    """Options of split.

    Attributes:
        data: root folder of the data set, or its table.
        output: CSV file to write, for ``dataset.split_table``; one that is there is not written over.
        folds: so many equal folds, for ``dataset.fold_column: fold`` and ``dataset.folds``; None draws train, val and
            test.
        seed: fixes the draw.
        dataset: how to read the data; ``val_fraction`` and ``test_fraction`` are the shares of the groups.
    """

    data: str
    output: str
    folds: int | None = None
    seed: int = 0
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class AuditConfig:
    """Options of an audit.

    Attributes:
        data: root folder of the data set, or its table.
        output: folder for ``audit.md`` and ``audit.json``.
        split: which split to look at: ``auto`` takes that of the data, else the one that a run would draw; ``drawn``
            the latter in any case; ``random`` one of rows at random, to show what goes wrong.
        seed: fixes a drawn split, as ``seed`` of a run does.
        synonyms: JSON file that maps labels to further words that would give them away.
        dataset: how to read the data.
    """

    data: str
    output: str = "audit"
    split: str = "auto"
    seed: int = 0
    synonyms: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


def demo(config: DemoConfig) -> None:
    """Make a small data set, train image-only, text-only and fusion models on it, and compare them."""
    from mmfusion.cli.demo import run_demo

    run_demo(config.output, seed=config.seed)


def train(config: RunConfig) -> None:
    """Train a model on a table of cases."""
    from mmfusion.training import train

    if text := train(config).summary():
        print(text)


def compare(config: StudyConfig) -> None:
    """Train runs that differ in one thing, over several seeds, and say what the difference is worth."""
    from mmfusion.experiments import compare

    compare(config)


def sweep(config: SweepConfig) -> None:
    """Search ranges of settings for the best validation figure."""
    from mmfusion.experiments import sweep

    sweep(config)


def evaluate(config: EvaluateConfig) -> None:
    """Measure a trained model on one split of a data set."""
    from mmfusion.evaluation.evaluate import evaluate, read_split

    predictor = _predictor(config.model, config.calibrated)
    if config.report and len(_listed(config.model)) > 1:
        raise ValueError("--report looks into one model; evaluate the models of an ensemble one by one.")
    read: dict[str, Any] = {"dataset": config.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    cases = read_split(config.data, config.split, **read)
    output = config.output or _beside_model(config.model, f"evaluation/{config.split}")
    print(f"evaluating {config.model} on {len(cases):,} rows ({config.split}) of {config.data}")
    metrics = evaluate(
        predictor.model,
        predictor.processor,
        cases,
        output=output,
        on_bad_row=config.dataset.on_bad_row,
        batch_size=config.batch_size,
        tta=config.tta,
        channels_last=predictor.channels_last,
        subgroups=_listed(config.subgroups),
        validation=_validation(config, read),
        coverage=config.coverage,
        sensitivity=config.sensitivity,
        missing_modality=config.missing_modality or config.report,
    )
    _print_figures(metrics)
    use = {"experts": metrics["expert_use"]} if "expert_use" in metrics else {}
    use |= {f"gate {name}": shares for name, shares in metrics.get("gates", {}).items()}
    for name, shares in use.items():
        print(f"  {name:18} {' '.join(f'{share:.2f}' for share in shares['mean'])}")
    print(f"metrics.json, predictions.csv and plots are in {output}")
    if config.report:
        from mmfusion.evaluation.report import write_report

        facts = {"Rows": f"split {config.split} of {config.data}"}
        title = f"{config.model} on {config.split}"
        command = _command("evaluate", config)
        print(
            f"the page is {write_report(output, metrics, cases, predictor, title=title, command=command, facts=facts)}"
        )


def _validation(config: EvaluateConfig, read: dict[str, Any]) -> Any:
    """The rows to fit conformal sets and thresholds on; None where none were asked for, or a report finds none."""
    from mmfusion.evaluation.evaluate import read_split

    if config.validation and config.split in ("val", "all"):
        raise ValueError(f"--validation fits on the rows of val, which are among those of --split {config.split}.")
    if not (config.validation or config.report) or config.split in ("val", "all"):
        return None
    try:
        return read_split(config.data, "val", **read)
    except ValueError:
        if config.validation:
            raise
        return None


def _command(name: str, config: Any) -> str:
    """The command line that makes these options, those left at their defaults apart."""

    def options(values: Any, prefix: str = "--") -> Iterator[str]:
        for f in fields(values):
            value = getattr(values, f.name)
            default = (
                f.default if f.default is not MISSING else f.default_factory() if callable(f.default_factory) else None
            )
            if is_dataclass(value):
                yield from options(value, f"{prefix}{f.name}.")
            elif value != default:
                plain = isinstance(value, str | int | float) and not isinstance(value, bool)
                yield from (f"{prefix}{f.name}", str(value) if plain else json.dumps(value))

    return shlex.join(["mmfusion", name, *options(config)])


def _print_figures(metrics: dict[str, Any]) -> None:
    from mmfusion.evaluation.intervals import interval_text
    from mmfusion.evaluation.metrics import HEADLINE

    print(
        "figures, with {level:.0%} intervals ({groups:,} groups drawn {replicates:,} times):".format(
            **metrics["bootstrap"]
        )
    )
    for name in HEADLINE:
        print(f"  {name:18} {interval_text(metrics['intervals'][name])}")
    if found := metrics["calibration"]:
        before, after = found["before"], found["after"]
        print(
            f"calibrated with temperature {found['temperature']:.3f} ({found['fitted_on']}, {found['n']:,} rows): "
            f"ece {before['ece']:.3f} -> {after['ece']:.3f}, nll {before['nll']:.3f} -> {after['nll']:.3f}; "
            "--calibrated false leaves it out"
        )
    for column, parts in metrics.get("subgroups", {}).items():
        print(f"balanced accuracy by {column}:")
        for part in parts:
            rows = f"{part['n']:,} rows, {part['classes']} classes{', small' if part['small'] else ''}"
            print(f"  {part['value']:18} {interval_text(part['balanced_accuracy'])}  ({rows})")
    if "conformal" in metrics:
        print(f"conformal sets for {metrics['conformal']['wanted']:.0%} coverage:")
        for name, found in metrics["conformal"].items():
            if isinstance(found, dict):
                covered, size = interval_text(found["coverage"]), interval_text(found["mean_size"], 2)
                print(f"  {name:18} coverage {covered}, classes in a set {size}")
    if "thresholds" in metrics:
        print(f"thresholds for a sensitivity of {metrics['thresholds']['wanted']:.0%} on the validation rows:")
        for name, found in metrics["thresholds"]["per_class"].items():
            if found["threshold"] is None:
                print(f"  {name:18} no validation rows")
            else:
                figures = (f"{figure} {interval_text(found[figure])}" for figure in ("sensitivity", "specificity"))
                print(f"  {name:18} from {found['threshold']:.4f} on: {', '.join(figures)}")
    if metrics.get("missing_modality") == []:
        print("no modality to take away: the model reads one, or no row has both")
    for row in metrics.get("missing_modality", ()):
        print(
            f"  {row['shown']:18} balanced accuracy {interval_text(row['balanced_accuracy'])}, "
            f"{row['changed']:.1%} named otherwise  ({row['n']:,} rows)"
        )


def predict(config: PredictConfig) -> None:
    """Predict a folder of images or a table, and write a CSV."""
    predictor = _predictor(config.model, config.calibrated)
    print(f"predicting {config.data} with {_described(config.model, predictor)}")
    rows, unreadable = predictor.predict_path(
        config.data, config.output, dataset=config.dataset, tta=config.tta, batch_size=config.batch_size
    )
    failed = f"; {unreadable:,} could not be read, see the column error" if unreadable else ""
    print(f"{rows:,} rows in {config.output}{failed}")


def push(config: PushConfig) -> None:
    """Push a saved model to the Hugging Face Hub, in one commit."""
    from mmfusion.models import push_to_hub, resolve_artifact

    folder = resolve_artifact(config.model)
    print(f"pushing {folder} to {config.repo}")
    commit = push_to_hub(
        folder,
        config.repo,
        private=config.private,
        revision=config.revision,
        overwrite_card=config.overwrite_card,
        message=config.message,
    )
    print(f"{commit}\nload it with mmfusion.create_model('hf-hub:{config.repo}')")


def export(config: ExportConfig) -> None:
    """Export a trained model to ONNX or torch.export, and compare what was written with the model."""
    from mmfusion.exporting import export_model

    print(f"exporting {config.model} to {config.format} (tracing takes a while)")
    exported = export_model(config.model, config.output, format=config.format, tolerance=config.tolerance)
    print(
        f"largest difference from the model {exported.difference:.1e}, over batches of several sizes, with missing "
        f"modalities\nwritten to {exported.path}"
    )
    if exported.path.is_dir() and config.format == "onnx":
        print(f"use it with mmfusion predict --model local-dir:{exported.path} --data DATA")


_BATCH_NORM = {
    "estimated": "BatchNorm's statistics were measured again, on training rows",
    "averaged": "BatchNorm's statistics were averaged like weights, which is wrong in general: give --data to measure "
    "them again on training rows",
}


def soup(config: SoupConfig) -> None:
    """Average the weights of several runs of one architecture into one model."""
    from mmfusion.averaging import make_soup

    print(f"a soup of {len(config.models)} models")
    found = make_soup(
        config.models,
        config.output,
        data=config.data,
        dataset=config.dataset if config.data is not None else None,
        method=config.method,
        metric=config.metric,
        batch_size=config.batch_size,
    )
    for name in [*found.ingredients, *(name for name in found.scores if name not in found.ingredients)]:
        score = f"{config.metric} {found.scores[name]:.4f}, " if name in found.scores else ""
        print(f"  {name}: {score}{'in the soup' if name in found.ingredients else 'left out'}")
    if found.score is None:
        print("not measured, and without a temperature: give --data for both")
    else:
        what = f"the soup of {len(found.ingredients)}" if len(found.ingredients) > 1 else "no other helps it: the best"
        print(f"{what} has {config.metric} {found.score:.4f} on the validation rows")
        if found.better_alone is not None:
            print(f"{found.better_alone} alone is better there than this soup")
    if found.batch_norm in _BATCH_NORM:
        print(_BATCH_NORM[found.batch_norm])
    print(f"saved in {found.path}")


def explain(config: ExplainConfig) -> None:
    """Show where a trained model looks, which words it reads, and how much image and text count."""
    predictor = _predictor(config.model)
    print(f"explaining {config.data} with {config.model}")
    results = predictor.explain_path(
        config.data,
        config.output,
        ids=_listed(config.rows) if config.rows is not None else None,
        limit=config.limit,
        dataset=config.dataset,
        label=config.label,
        method=config.method,
        level=config.level,
        text_method=config.text_method,
    )
    failed = {id_: reason for id_, reason in results.items() if reason is not None}
    for id_, reason in failed.items():
        print(f"  {id_}: {reason}")
    print(f"{len(results) - len(failed):,} rows explained in {config.output}; {len(failed):,} could not be read")


def narrate(config: NarrateConfig) -> None:
    """Write a narrative for each row: a sentence from metadata, and passages retrieved for it."""
    from mmfusion.narrative import narrate

    print(f"writing narratives for {config.data}")
    summary = narrate(config.data, config.output, config.narrative, config.dataset)
    for place in ("passages", "rows"):
        if removed := summary[f"removed_from_{place}"]:
            words = sorted({word for found in removed.values() for word in found}) if place == "passages" else removed
            print(f"leak guard: removed {', '.join(words)} from {place}")
    if summary["unguarded_labels"]:
        print(
            f"leak guard: the labels {', '.join(summary['unguarded_labels'])} are numbers, which are not looked for; "
            "name the words that give them away with --narrative.synonyms FILE.json"
        )
    if summary["without_image"]:
        print(f"no text for {len(summary['without_image']):,} rows without an image: response.json is keyed by image")
    if summary["without_text"]:
        print(f"{summary['without_text']:,} rows have neither metadata nor text")
    print(f"first of {summary['rows']:,}: {summary['example']}")
    print(f"read it with: --data {config.output} --dataset.image_root {summary['image_root']}")


def split(config: SplitConfig) -> None:
    """Split a data set by patient or lesion, stratified by class, and keep the split in a file."""
    from mmfusion.data.split_table import draw_split_table

    cases = draw_split_table(config.data, config.output, config.dataset, folds=config.folds, seed=config.seed)
    column = "split" if config.folds is None else "fold"
    groups = cases.frame["group"].nunique()
    by = f"{groups:,} groups stay whole" if groups else "no group column: each row is by itself"
    print(f"split {len(cases):,} rows of {config.data}; {by}")
    for name in list(cases.splits) or sorted(set(cases.frame[column])):
        rows = cases.frame[cases.frame[column] == name]
        counts = rows["label"].value_counts().sort_index().items()
        print(f"  {column} {name}: {len(rows):,} rows ({', '.join(f'{label} {count:,}' for label, count in counts)})")
    how = f"--dataset.split_table {config.output}"
    if config.folds is not None:
        how += " --dataset.fold_column fold --dataset.folds '{test: [0], val: [1]}'"
    print(f"{config.output} written; use it with {how}")


def audit(config: AuditConfig) -> None:
    """Look for leaks, duplicates, gaps and thin classes that would make figures on a data set untrue."""
    from mmfusion.auditing import audit
    from mmfusion.text.guard import read_synonyms

    synonyms = read_synonyms(config.synonyms) if config.synonyms is not None else None
    print(f"auditing {config.data}")
    outcome = audit(config.data, config.dataset, split=config.split, seed=config.seed, synonyms=synonyms)
    outcome.write(config.output)
    print(outcome.summary())
    print(f"{Path(config.output) / 'audit.md'} says what to do; audit.json beside it names every row")


def list_names(config: ListConfig) -> None:
    """List models, or the parts they are made of."""
    from mmfusion import registry
    from mmfusion.models import list_models

    if config.kind != "model" and config.pretrained:
        raise ValueError(f"--pretrained lists models; it does not go with --kind {config.kind}.")
    known = list_models(pretrained=config.pretrained) if config.kind == "model" else registry.names(config.kind)
    found = [name for name in known if registry.matches(name, config.pattern)]
    if not known:
        print(f"This version brings no {'trained weights' if config.pretrained else config.kind}.", file=sys.stderr)
        return
    if not found:
        raise ValueError(f"No {config.kind} matches {config.pattern!r}; {did_you_mean(config.pattern, known)}")
    for name in found:
        print("  ".join([name, *cast(Any, name).facts()]) if config.pretrained else name)


def info(config: InfoConfig) -> None:
    """Show what a model or a part is made of."""
    from mmfusion.cli.info import describe

    print(describe(config.name))


COMMANDS: dict[str, Callable[[Any], None]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "compare": compare,
    "sweep": sweep,
    "narrate": narrate,
    "export": export,
    "soup": soup,
    "push": push,
    "split": split,
    "audit": audit,
    "list": list_names,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0, 2 after bad input (one line on stderr; the traceback instead where ``MMFUSION_DEBUG`` is set), or
        130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    program = f"mmfusion {name}" if name in COMMANDS else "mmfusion"
    try:
        if name in COMMANDS:
            command = COMMANDS[name]
            command(_options(command, program, argv[1:]))
        else:
            _overview(argv)
    except USER_ERRORS as error:
        if os.environ.get("MMFUSION_DEBUG"):
            raise
        print(f"{program}: error: {_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0


def _overview(argv: list[str]) -> None:
    """``mmfusion``, ``--help`` and ``--version``.

    Raises:
        ValueError: the first argument is no command.
    """
    if argv and not argv[0].startswith("-"):
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}."
        raise ValueError(f"Unknown command {argv[0]!r}; {hint}")
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {_first_line(command)}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mmfusion",
        usage="mmfusion COMMAND [--config FILE.yaml] [--KEY VALUE ...]",
        description="Multimodal diagnosis from images and patient text.",
        epilog=f"commands:\n{commands}\n\n"
        "'mmfusion COMMAND --help' shows the options of a command. MMFUSION_DEBUG=1 shows tracebacks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"mmfusion {__version__}")
    _, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(f"Unknown option {unknown[0]!r}; see mmfusion --help.")
    parser.print_help()


def _options(command: Callable[[Any], None], program: str, argv: list[str]) -> Any:
    """The command's dataclass, filled from defaults, then ``--config`` files, then the other arguments."""
    options = get_type_hints(command)["config"]
    parser = _parser(command, options, program)
    argv = _ordered(argv, options)
    parsed = _parse(parser, argv)
    if saved := _saved_dataset(parsed):
        parser.set_defaults({f"dataset.{key}": value for key, value in saved.items()})
        parsed = _parse(parser, argv)
    return build(options, parsed)


def _parser(command: Callable[[Any], None], options: type, program: str) -> ArgumentParser:
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    help_texts = {text.arg_name: text.description for text in parse(options.__doc__ or "").params}
    positional = [f for f in fields(options) if f.metadata.get("positional")]
    usage = " ".join(
        [program, *(f"[{f.name.upper()}]" if f.default is not MISSING else f.name.upper() for f in positional)]
    )
    parser = ArgumentParser(
        prog=program,
        usage=f"{usage} [--config FILE.yaml] [--KEY VALUE ...]",
        description=command.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help=_CONFIG_HELP)
    for f in positional:
        optional = {} if f.default is MISSING else {"nargs": "?", "default": f.default}
        parser.add_argument(f.name, type=str, help=help_texts[f.name], **optional)
    parser.add_class_arguments(options, None, skip={f.name for f in positional})
    return parser


def _flags(options: type, prefix: str = "--") -> Iterator[str]:
    """Yes-or-no options, which may stand without a value."""
    for name, hint in get_type_hints(options).items():
        if is_dataclass(hint):
            yield from _flags(cast(type, hint), f"{prefix}{name}.")
        elif hint is bool:
            yield prefix + name


def _ordered(argv: list[str], options: type) -> list[str]:
    """Aliases, flags and lists spelled out, and ``--config`` files first: an argument beats a file wherever it stands.

    A list stands as ``[a, b]``, or as its items one after the other.
    """
    flags = set(_flags(options))
    lists = {f"--{name}" for name, hint in get_type_hints(options).items() if hint == list[str]}
    files: list[str] = []
    others: list[str] = []
    rest = deque(argv)
    while rest:
        option, equals, value = rest.popleft().partition("=")
        option = ALIASES.get(option, option)
        if option in flags and not equals and (not rest or rest[0].lower() not in ("true", "false")):
            equals, value = "=", "true"
        if option in lists and not equals:
            items = []
            while rest and not rest[0].startswith("--"):
                items.append(rest.popleft())
            equals, value = "=", items[0] if len(items) == 1 and items[0].startswith("[") else json.dumps(items)
        if option != "--config":
            others.append(option + equals + value)
        elif equals or rest:
            files += [option, _config_file(value if equals else rest.popleft(), options)]
        else:
            files.append(option)
    return files + others


def _config_file(path: str, options: type) -> str:
    """The file itself; of one that describes a training run, as text, what concerns a command that is no training."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return path  # the parser says what is wrong with it
    hints = get_type_hints(options)
    of_run = [name for name, hint in get_type_hints(RunConfig).items() if is_dataclass(hint)]
    foreign = [name for name in of_run if not is_dataclass(hints.get(name))]
    if not isinstance(content, dict) or not any(isinstance(content.get(name), dict) for name in foreign):
        return path
    shared = [name for name in ("data", "seed", "dataset") if name in hints]
    others = content.keys() - get_type_hints(RunConfig)
    return yaml.safe_dump({name: value for name, value in content.items() if name in others or name in shared})


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    try:
        return parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(_plain(str(error), parser)) from error


def _plain(message: str, parser: ArgumentParser) -> str:
    """A parser's message as a user would say it."""
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    types = [t.replace("NoneType", "null") for t in re.findall(r"Expected a <class '(\w+)'>", message)]
    if key and value and types:
        return f"--{key[1]} expects {' or '.join(types)}; got {value[1]!r}."
    if file := re.match(r"""Parser key "([^"]+)":\s+Unable to load config ['"]([^'"]+)""", message):
        return f"--{file[1]}: {file[2]} cannot be read; a path in a file is relative to that file."
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        option = unknown[1].split("=")[0]
        known = [name for action in parser._actions for name in action.option_strings]
        near = difflib.get_close_matches(option, [*known, *ALIASES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {parser.prog} --help."
        return f"Unknown argument {option}; {hint}"
    if required := re.search(r"arguments are required: (.*)", message):
        return f"Missing {required[1]}; see {parser.prog} --help."
    return message.replace('Parser key "config": ', "")


def _saved_dataset(parsed: Namespace) -> dict[str, Any]:
    """The dataset settings that came with a trained model, where the command names one."""
    models = parsed.get("models") or _listed(parsed.get("model") if isinstance(parsed.get("model"), str) else None)
    if "dataset" not in parsed or not models:
        return {}
    from mmfusion.models import read_config, resolve_artifact

    return (read_config(resolve_artifact(models[0])).get("training") or {}).get("dataset") or {}


def _listed(names: str | None) -> list[str]:
    return [] if names is None else [name.strip() for name in names.split(",")]


def _predictor(model: str, calibrated: bool = True) -> Predictor:
    from mmfusion.hardware import resolve_channels_last
    from mmfusion.inference.predictor import Predictor

    names = _listed(model)
    return Predictor.from_pretrained(
        names if len(names) > 1 else model, channels_last=resolve_channels_last(None), calibrated=calibrated
    )


def _described(model: str, predictor: Predictor) -> str:
    """The model's name, with its temperature; several as what they are."""
    names = _listed(model)
    if len(names) > 1:
        return f"the mean of {len(names)} models: {', '.join(names)}"
    fitted = predictor.model.calibration
    return f"{model}, calibrated with temperature {fitted['temperature']:.3f}" if fitted else model


def _beside_model(model: str, name: str) -> Path:
    """A folder in the run folder of a local model, and below ``runs`` for any other."""
    if not model.startswith("local-dir:") or len(_listed(model)) > 1:
        return Path("runs", re.sub("[^A-Za-z0-9._-]+", "-", model), name)
    folder = Path(model.removeprefix("local-dir:")).expanduser()
    return (folder.parent if folder.name in ("best", "last") else folder) / name


def _message(error: BaseException) -> str:
    """One line; only the list of bad rows keeps its lines."""
    if type(error).__name__ == "BadRowsError":
        return str(error)
    return " ".join(str(error).split()) or type(error).__name__


def _first_line(command: Callable[[Any], None]) -> str:
    return (command.__doc__ or "").splitlines()[0]
