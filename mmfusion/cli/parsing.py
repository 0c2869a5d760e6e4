"""Parse the arguments of a command into its configuration dataclass: a thin layer over jsonargparse.

It adds lists of several words, flags without a value, options that override files in any order, and messages.
"""

import argparse
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn, get_type_hints

import jsonargparse
import yaml
from docstring_parser import parse as parse_docstring

from mmfusion.artifacts.integrity import accept_edits
from mmfusion.cli.commands import COMMANDS
from mmfusion.cli.unused import without_unused
from mmfusion.data.config import handed_on
from mmfusion.registry import load_plugins
from mmfusion.settings import build, leaves
from mmfusion.training.config import RunConfig

#: Option -> further spellings.
ALIASES = {
    "dataset.on_bad_row": ("on_bad_row", "on-bad-row"),
    "model.task": ("task",),
    "dataset.task": ("task",),
    "train.alarm": ("alarm",),
    "train.operating_points": ("operating_points",),
    "train.prevalence": ("prevalence",),
}

#: Option of every command that is given trained models.
EDITED = "allow_edited"
_MODELS = ("model", "models", "name", "label_errors")
_EDITED_HELP = "Accept a model folder that was edited by hand since it was saved, with a warning."
_CONFIG_HELP = "YAML file of options; arguments win. Of a training config, other commands use data, dataset and seed."


def parse(name: str, argv: Sequence[str]) -> Any:
    """Parse the arguments of a command: defaults, then the ``--config`` files, then the other arguments.

    The dataset settings saved with a trained model are defaults of a command that uses it. The modules of ``--plugins``
    are imported, and passed on to the base run of an experiment. ``--allow_edited`` is valid until the end of the
    enclosing :func:`mmfusion.artifacts.integrity.edits`.

    Raises:
        ArgumentError: An option is unknown, missing or of the wrong type.
    """
    config = resolve_name(f"mmfusion.{COMMANDS[name].config}")
    parser = _parser(name, config)
    argv = _spelled_out(parser, config, argv)
    parsed = parser.parse_args(argv)
    if parsed.get(EDITED):
        accept_edits()
    if saved := _saved_dataset(parsed):
        parser.set_defaults({f"dataset.{key}": value for key, value in saved.items()})
        parsed = parser.parse_args(argv)
    for key in parser.plugins:
        parsed[key] = list(dict.fromkeys([*parsed["plugins"], *parsed[key]]))
        load_plugins(parsed[key])
    if "dataset" in parsed:
        typed = {word.partition("=")[0].removeprefix("--") for word in argv}
        kept = without_unused(name, vars(parsed["dataset"]), saved, typed, vars(parsed))
        parsed["dataset"] = jsonargparse.Namespace(**kept)
    return build(config, parsed)


def known_options(name: str) -> Mapping[str, Any]:
    """The options of a command, dotted, and their types."""
    return _parser(name, resolve_name(f"mmfusion.{COMMANDS[name].config}")).hints


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser with one-line messages."""

    hints: Mapping[str, Any] = {}  # dotted option -> its type
    required: Sequence[str] = ()  # options that must be given
    words: Sequence[str] = ()  # arguments without an option's name
    example: str | None = None  # option shown as an example in messages
    plugins: Sequence[str] = ()  # options that name modules to import

    def validate(self, namespace: jsonargparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Check the names first: of options in files, and of required ones."""
        for key in namespace.keys() if self.hints else ():
            if not key.endswith("__"):  # jsonargparse's own, such as the path of a file
                self.check_name(key)
        if missing := [key for key in self.required if namespace.get(key) is None]:
            self.error(f"Missing {', '.join(missing)}; see {self.prog} --help.")
        super().validate(namespace, *args, **kwargs)

    def check_name(self, option: str) -> None:
        """Refuse an unknown option, with or without its hyphens; within a dict, names are free."""
        name = option.removeprefix("--")
        is_word = option.startswith("--") and name in self.words
        if name in ("help", "config", "print_config", *self.hints) and not is_word:
            return
        for other, hint in self.hints.items():
            if other.startswith(f"{name}.") or (name.startswith(f"{other}.") and _is("dict", hint)):
                return
        options = [other for other in self.hints if other not in self.words]
        known = [f"--{spelling}" for other in options for spelling in _spellings(other, self.hints)]
        near = difflib.get_close_matches(f"--{name}", known, n=1)
        words = f"it is {' '.join([self.prog, *map(str.upper, self.words)])}." if self.words else ""
        fix = f"did you mean {near[0]}?" if near else words or f"see {self.prog} --help."
        self.error(f"Unknown argument {option}; {fix}")

    def format_help(self, *args: Any) -> str:
        """Show lists as they are written here: ``--model ITEM [ITEM ...]``."""
        as_parsed = r"(--\S+) \[ITEM,\.\.\.\], \S+ \[ITEM,\.\.\.\]"
        return re.sub(as_parsed, r"\1 ITEM [ITEM ...]", super().format_help(*args))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an error of one line. Option and value are available only in jsonargparse's text."""
        key = (re.findall(r'Parser key "([^"]+)"', message) or [""])[-1]
        hint = self.hints.get(key)
        if value := re.search(r"(?:Got|Given) value: (.*)", message) if hint else None:
            wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("None", "null").replace(" |", " or")
            message = f"--{key} expects {wanted}; got {value[1]!r}."
        elif path := re.search(r"Unable to load config '([^']*)'", message):
            message = f"--{key}: {path[1]} cannot be read; a path in a file is relative to that file."
            if f"{key}.name" in self.hints and not path[1].endswith((".yaml", ".yml")):
                message = f"--{key} takes a file of settings; the {key} is named by --{key}.name {path[1]}."
        if re.match("(?i)unrecognized arguments: .*[^.]$", message) and self.example:
            message += f"; values follow their options, such as --{self.example} VALUE."
        raise argparse.ArgumentError(None, message.replace('Parser key "config": ', "")) from ex


def _spellings(name: str, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Alternative spellings of an option; in commands with a model, the task is the model's."""
    is_model = name == "dataset.task" and "model.task" in known
    return (name,) if is_model else (name, *ALIASES.get(name, ()))


def _parser(name: str, config: type) -> Parser:
    texts = {text.arg_name: text.description for text in parse_docstring(config.__doc__ or "").params}
    positional = {f.name: f.default for f in fields(config) if f.metadata.get("positional")}
    words = [key.upper() if default is MISSING else f"[{key.upper()}]" for key, default in positional.items()]
    usage = " ".join(["mmfusion", name, *words, "[--config FILE.yaml] [--KEY VALUE ...]"])
    about: dict[str, Any] = {"prog": f"mmfusion {name}", "usage": usage, "description": COMMANDS[name].help}
    parser = Parser(**about, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help=_CONFIG_HELP)
    for key, default in positional.items():
        optional = {} if default is MISSING else {"nargs": "?", "default": default}
        parser.add_argument(key, type=str, help=texts[key], **optional)
    parser.add_class_arguments(config, None, skip=set(positional))
    runs = [f"{key}.plugins" for key, hint in get_type_hints(config).items() if hint is RunConfig]
    parser.plugins = ["plugins", *runs]  # an experiment's base run is a file that may name its plug-ins
    settings = list(leaves(config))
    for key in {*parser.plugins} - {key for key, _, _ in settings}:
        parser.add_argument(f"--{key}", type=list[str], default=[], help="Modules that register your own parts.")
    parser.required = [key for key, _, required in settings if required]
    hints = {key: hint for key, hint, _ in settings} | dict.fromkeys(parser.plugins, list[str])
    if any(key.rpartition("model.")[2] in _MODELS for key in hints):
        parser.add_argument(f"--{EDITED}", type=bool, default=False, help=_EDITED_HELP)
        hints[EDITED] = bool
    parser.hints = hints
    parser.words = list(positional)
    parser.example = next(iter([*parser.required, *parser.hints])) if not positional else None
    return parser


def _spelled_out(parser: Parser, config: type, argv: Sequence[str]) -> list[str]:
    """The arguments as jsonargparse takes them: files first, aliases by their name, flags and lists with one value."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append", default=[])
    for name, hint in parser.hints.items():
        words: dict[str, Any] = {"nargs": "+"} if _is("list", hint) else {}
        words = {"nargs": "?", "const": "true"} if _is("bool", hint) else words
        if words or name in ALIASES:
            spellings = [f"--{spelling}" for spelling in _spellings(name, parser.hints)]
            first.add_argument(*spellings, dest=name, default=argparse.SUPPRESS, **words)
    given, rest = first.parse_known_args(argv)
    values = vars(given)
    files = [f"--config={_config_file(path, config)}" for path in values.pop("config")]
    for option in rest:
        if option.startswith("--"):
            parser.check_name(option.partition("=")[0].rstrip("+"))
    for name, value in values.items():
        hint = parser.hints[name]
        if _is("bool", hint) and value.lower() not in ("true", "false") and any(f.metadata for f in fields(config)):
            rest, value = [*rest, value], "true"  # the word after a flag is a positional argument
        rest.append(f"--{name}={value if isinstance(value, str) else _list(name, hint, value)}")
    return files + rest


def _list(name: str, hint: Any, words: list[str]) -> str:
    """A list as YAML, from its words, or from one that is YAML already."""
    if len(words) == 1 and (words[0].startswith("[") or words[0] == "null"):
        return words[0]
    if len(words) == 1 and "," in words[0]:
        spaced = " ".join(word.strip() for word in words[0].split(","))
        raise ValueError(f"--{name} {words[0]}: write the items as words, --{name} {spaced}.")
    return json.dumps(words) if "str" in str(hint) else f"[{', '.join(words)}]"


def _config_file(path: str, config: type) -> str:
    """The path of a file; or its text, without options that only training has, and with single words as lists."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return path  # the parser reports the error
    if not isinstance(content, dict):
        return path
    hints, of_run = {**get_type_hints(config), "plugins": list[str]}, get_type_hints(RunConfig)
    foreign = [key for key, hint in of_run.items() if is_dataclass(hint) and not is_dataclass(hints.get(key))]
    kept = dict(content)
    if any(isinstance(content.get(key), dict) for key in foreign):
        shared = {"data", "dataset", "seed"} & hints.keys()
        kept = {key: value for key, value in content.items() if key in shared or key not in of_run}
    for key, value in kept.items():
        if isinstance(value, str) and _is("list", hints.get(key)):
            kept[key] = yaml.safe_load(_list(key, hints[key], [value]))
    if kept == content:
        return path
    parts = {key: value for key, value in kept.items() if isinstance(value, str) and is_dataclass(hints.get(key))}
    return yaml.safe_dump(kept | {key: str(Path(path).parent / value) for key, value in parts.items()})


def _saved_dataset(parsed: jsonargparse.Namespace) -> dict[str, Any]:
    """The dataset settings of the command's (first) trained model.

    These are the settings saved with the model, or all settings of its run if the command reads the run's data.
    """
    models = parsed.get("models") or parsed.get("model")
    if "dataset" not in parsed or not isinstance(models, str | list) or not models:
        return {}
    from mmfusion.artifacts.folder import read_config, resolve_members  # light, but not for --help

    folder = resolve_members(models if isinstance(models, str) else models[0])[0]
    handed = handed_on((read_config(folder).get("training") or {}).get("dataset") or {})
    return handed | _of_run(folder, parsed.get("data"))


def _of_run(folder: Path, data: Any) -> dict[str, Any]:
    """Dataset settings of a model's training run, if it read the same data; the template is the processor's."""
    try:
        run = yaml.safe_load((folder.parent / "config.yaml").read_text(encoding="utf-8"))
        is_own = os.path.abspath(run["data"]) == os.path.abspath(data)
        return {name: value for name, value in run["dataset"].items() if name != "text_template"} if is_own else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _is(kind: str, hint: Any) -> bool:
    """Whether a type is a list (or dict), or an optional one."""
    return re.match(rf"(<class ')?{kind}\b", str(hint)) is not None
