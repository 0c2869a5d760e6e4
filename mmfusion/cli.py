"""The command line. A command is a function of one dataclass: the dataclass is its options, the docstring its help.

This module imports no heavy library: a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import mmfusion
from mmfusion.data.config import DatasetConfig
from mmfusion.narrative.config import NarrativeConfig
from mmfusion.training.config import RunConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from mmfusion.predictor import Predictor

#: short spellings of options.
ALIASES = {"--on-bad-row": "--dataset.on_bad_row"}

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
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: root folder of the data set.
        split: rows to evaluate on: ``train``, ``val``, ``test`` or ``all``.
        output: folder for the results; None takes ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    split: str = "test"
    output: str | None = None
    batch_size: int = 64
    tta: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class PredictConfig:
    """Options of a prediction.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: folder of images, folder of a data set, or a table (CSV, Parquet).
        output: CSV file to write.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    output: str = "predictions.csv"
    batch_size: int = 64
    tta: bool = False
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


def demo(config: DemoConfig) -> None:
    """Make a small data set, train image-only, text-only and fusion models on it, and compare them."""
    from mmfusion.demo import run_demo

    run_demo(config.output, seed=config.seed)


def train(config: RunConfig) -> None:
    """Train a model on a table of cases."""
    from mmfusion.training import train

    train(config)


def evaluate(config: EvaluateConfig) -> None:
    """Measure a trained model on one split of a data set."""
    from mmfusion.evaluation.evaluate import evaluate, read_split
    from mmfusion.evaluation.metrics import headline

    predictor = _predictor(config.model)
    cases = read_split(
        config.data,
        config.split,
        dataset=config.dataset,
        labels=predictor.labels,
        provenance=predictor.provenance,
    )
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
    )
    for name, value in headline(metrics).items():
        print(f"  {name:18} {value:.4f}")
    use = {"experts": metrics["expert_use"]} if "expert_use" in metrics else {}
    use |= {f"gate {name}": shares for name, shares in metrics.get("gates", {}).items()}
    for name, shares in use.items():
        print(f"  {name:18} {' '.join(f'{share:.2f}' for share in shares['mean'])}")
    print(f"metrics.json, predictions.csv, confusion_matrix.png and roc.png are in {output}")


def predict(config: PredictConfig) -> None:
    """Predict a folder of images or a table, and write a CSV."""
    predictor = _predictor(config.model)
    print(f"predicting {config.data} with {config.model}")
    rows, unreadable = predictor.predict_path(
        config.data, config.output, dataset=config.dataset, tta=config.tta, batch_size=config.batch_size
    )
    failed = f"; {unreadable:,} could not be read, see the column error" if unreadable else ""
    print(f"{rows:,} rows in {config.output}{failed}")


def explain(config: ExplainConfig) -> None:
    """Show where a trained model looks, which words it reads, and how much image and text count."""
    predictor = _predictor(config.model)
    print(f"explaining {config.data} with {config.model}")
    results = predictor.explain_path(
        config.data,
        config.output,
        ids=[id_.strip() for id_ in config.rows.split(",")] if config.rows is not None else None,
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
        raise ValueError(f"No {config.kind} matches {config.pattern!r}; {registry.did_you_mean(config.pattern, known)}")
    print("\n".join(found))


def info(config: InfoConfig) -> None:
    """Show what a model or a part is made of."""
    from mmfusion.description import describe

    print(describe(config.name))


COMMANDS: dict[str, Callable[[Any], None]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "narrate": narrate,
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
    parser.add_argument("--version", action="version", version=f"mmfusion {mmfusion.__version__}")
    _, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(f"Unknown option {unknown[0]!r}; see mmfusion --help.")
    parser.print_help()


def _options(command: Callable[[Any], None], program: str, argv: list[str]) -> Any:
    """The command's dataclass, filled from defaults, then ``--config`` files, then the other arguments."""
    options = get_type_hints(command)["config"]
    parser = _parser(command, options, program)
    argv = _ordered(argv, flags=set(_flags(options)))
    parsed = _parse(parser, argv)
    if saved := _saved_dataset(parsed):
        parser.set_defaults({f"dataset.{key}": value for key, value in saved.items()})
        parsed = _parse(parser, argv)
    return _build(options, parsed)


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
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="Options from a file; arguments win.")
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


def _ordered(argv: list[str], flags: set[str]) -> list[str]:
    """Aliases and flags spelled out, and ``--config`` files first: an argument beats a file wherever it stands."""
    files: list[str] = []
    others: list[str] = []
    rest = deque(argv)
    while rest:
        option, equals, value = rest.popleft().partition("=")
        option = ALIASES.get(option, option)
        if option in flags and not equals and (not rest or rest[0].lower() not in ("true", "false")):
            equals, value = "=", "true"
        target = files if option == "--config" else others
        target.append(option + equals + value)
        if option == "--config" and not equals and rest:
            target.append(rest.popleft())
    return files + others


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
    if "dataset" not in parsed or not isinstance(parsed.get("model"), str):
        return {}
    from mmfusion.models import read_config, resolve_artifact

    return (read_config(resolve_artifact(parsed["model"])).get("training") or {}).get("dataset") or {}


def _predictor(model: str) -> Predictor:
    from mmfusion.predictor import Predictor
    from mmfusion.training.hardware import resolve_channels_last

    return Predictor.from_pretrained(model, channels_last=resolve_channels_last(None))


def _beside_model(model: str, name: str) -> Path:
    """A folder in the run folder of a local model, and below ``runs`` for any other."""
    if not model.startswith("local-dir:"):
        return Path("runs", re.sub("[^A-Za-z0-9._-]+", "-", model), name)
    folder = Path(model.removeprefix("local-dir:")).expanduser()
    return (folder.parent if folder.name in ("best", "last") else folder) / name


def _build(cls: type, values: Namespace) -> Any:
    hints = get_type_hints(cls)
    return cls(
        **{
            f.name: _build(hints[f.name], values[f.name]) if is_dataclass(hints[f.name]) else values[f.name]
            for f in fields(cls)
        }
    )


def _message(error: BaseException) -> str:
    """One line; only the list of bad rows keeps its lines."""
    if type(error).__name__ == "BadRowsError":
        return str(error)
    return " ".join(str(error).split()) or type(error).__name__


def _first_line(command: Callable[[Any], None]) -> str:
    return (command.__doc__ or "").splitlines()[0]
