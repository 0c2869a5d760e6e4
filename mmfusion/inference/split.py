"""Rows of a split as used in training."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.data.memory import DataSource


def read_split(data: DataSource, split: str, **how: Any) -> CaseTable:
    """The rows of a split; see :func:`read_measured`, whose keywords it accepts."""
    return read_measured(data, split, **how)[1]


def read_measured(
    data: DataSource,
    split: str | None,
    *,
    dataset: DatasetConfig,
    labels: Sequence[str],
    provenance: Mapping[str, Any],
    template: str | None = None,
) -> tuple[str, CaseTable]:
    """The rows of a data set to evaluate a trained model on, and the name of their split.

    Args:
        data: Root folder of the data set, or its table (a file, or one in memory).
        split: ``train``, ``val``, ``test``, or ``all``. None means ``test``, or ``all`` for data without a split unless
            their number of rows is that of the training data set, whose test split is then restored.
        dataset: How to read it.
        labels: Classes of the model.
        provenance: The ``training`` entry of the model's ``config.json``. Without a split column, the split is drawn
            again as in training, which needs the same seed and rows.
        template: Text template of the model; its columns may be missing.

    Raises:
        FileNotFoundError: The data do not exist.
        ValueError: There are bad rows (unless ``dataset.on_bad_row`` is ``skip``), the split does not exist, or it
            cannot be restored because the rows differ from those in training.
    """
    dataset = dataset.without_split() if split == "all" else dataset
    cases = read_cases(data, dataset, processor_labels=labels, template=template)
    if split is None:
        is_own = cases.splits or len(cases) == sum((provenance.get("rows") or {}).values())
        split = "test" if is_own else "all"
        if not is_own:
            told = f"all {len(cases):,} rows are evaluated; results are too optimistic if any were used for training"
            print(f"{cases.source} has no split: {told}")
    drawn = split != "all" and not cases.splits
    if not drawn:
        cases = cases if split == "all" else cases.select(split)
    if drawn or dataset.check_images or not cases.one_path:
        # the split was drawn from the valid rows; a case is kept without its unreadable images
        check_images(cases)
    if not drawn:
        return split, cases.resolve(dataset.on_bad_row)
    cases = cases.resolve(dataset.on_bad_row).split_or_draw(dataset, provenance.get("seed", 0))
    if cases.fingerprint() != provenance.get("data_fingerprint"):
        raise ValueError(
            f"{cases.source} has no split column and differs from the training data, so its {split!r} rows cannot be "
            "determined. Read them as in training (--config RUN/config.yaml), or use "
            "split 'all' for data that the model has not seen."
        )
    return split, cases.select(split)
