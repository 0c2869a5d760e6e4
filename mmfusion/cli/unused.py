"""Options that a command does not use: refused on the command line, told where a file has them."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

_SPLIT = ("split_column", "split_table", "fold_column", "folds", "val_fraction", "test_fraction")
_LABELS = ("label_column", "label_columns", "label_map")
_TRAINING = ("table_columns", "numeric_columns", "categorical_columns", "on_bad_column", "check_images")
_PREDICTED = (*_SPLIT, *_LABELS, *_TRAINING, "group_column", "on_bad_row")

#: Command -> what of its options of the data set it does not use.
UNUSED: dict[str, tuple[str, ...]] = {
    "predict": _PREDICTED,
    "explain": _PREDICTED,
    "evaluate": _TRAINING,
    "narrate": ("val_fraction", "test_fraction", "check_images", "on_bad_column"),
    "split": (*_SPLIT[:4], *_TRAINING),
}


def without_unused(
    name: str, values: Mapping[str, Any], defaults: Mapping[str, Any], typed: Collection[str]
) -> dict[str, Any]:
    """Options of the data set, without those that a command does not use.

    Args:
        name: The command.
        values: Options of its section ``dataset``.
        defaults: The same, as they are where nothing is given.
        typed: Dotted options that were given on the command line, or as keywords.

    Raises:
        ValueError: One that is not used was typed.
    """
    kept = dict(values)
    given = [option for option in UNUSED.get(name, ()) if kept.get(option) != defaults.get(option)]
    kept |= {option: defaults.get(option) for option in given}
    if refused := [f"--dataset.{option}" for option in given if f"dataset.{option}" in typed]:
        raise ValueError(f"{name} does not use {', '.join(refused)}; leave it out.")
    if given:
        told = ", ".join(f"dataset.{option}" for option in given)
        print(f"{name} does not use {told}, which the file has", file=sys.stderr)
    return kept
