"""Options that a command does not use: an error on the command line, a message if a file has them."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from mmfusion.data.config import DatasetConfig

_READ = ("split_column", "fold_column", "folds")
_DRAWN = ("split_table", "val_fraction", "test_fraction")
_LABELS = ("label_column", "label_columns", "label_map")
_COLUMNS = ("table_columns", "numeric_columns", "categorical_columns", "on_bad_column")
_TRAINING = (*_COLUMNS, "check_images")
_PREDICTED = (*_READ, *_DRAWN, *_LABELS, *_TRAINING, "group_column", "on_bad_row")

#: Command -> dataset options that it does not use.
UNUSED: dict[str, tuple[str, ...]] = {
    "predict": _PREDICTED,
    "explain": _PREDICTED,
    "embed": (*_DRAWN, *_TRAINING, "text_template", "on_bad_row"),
    "evaluate": _COLUMNS,
    "validate": _COLUMNS,
    "soup": _COLUMNS,
    "audit": ("check_images", "on_bad_column", "on_bad_row"),
    "narrate": (*_DRAWN, "check_images", "on_bad_column"),
    "split": (*_READ, "split_table", *_TRAINING),
}

#: Dataset option -> option of the command that makes the command use it.
USED_FOR = {"group_column": "by"}


def without_unused(
    name: str,
    values: Mapping[str, Any],
    saved: Mapping[str, Any],
    typed: Collection[str],
    others: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Dataset options without those that a command does not use.

    Args:
        name: The command.
        values: Options of its section ``dataset``.
        saved: Options saved with a trained model, which replace the defaults.
        typed: Dotted options given on the command line or as keywords.
        others: The other options of the command.

    Raises:
        ValueError: An unused option was typed.
    """
    unused = [option for option in UNUSED.get(name, ()) if others.get(USED_FOR.get(option, "")) is None]
    plain = vars(DatasetConfig())
    untouched = {**plain, **saved}
    # a dataclass contains all options; those with default values were not set by the user
    given = [option for option in unused if values[option] not in (plain[option], untouched[option])]
    kept = {**values, **{option: untouched[option] for option in unused}}
    if refused := [f"--dataset.{option}" for option in given if f"dataset.{option}" in typed]:
        raise ValueError(f"{name} does not use {', '.join(refused)}; leave it out.")
    if given:
        told = ", ".join(f"dataset.{option}" for option in given)
        print(f"{name} does not use {told}, which the file has", file=sys.stderr)
    return kept
