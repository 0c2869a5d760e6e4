"""The rows of a split, as they were when a model was trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.data.memory import DataSource


def read_split(data: DataSource, split: str, **how: Any) -> CaseTable:
    """The rows of a split: those of :func:`read_measured`, whose keywords it takes."""
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
    """The rows of a data set to measure a trained model on, and which split they are.

    Args:
        data: root folder of the data set, or its table (a file, or one in memory).
        split: ``train``, ``val``, ``test``, or ``all``. None takes ``test``; of data without a split ``all``, unless
            they are as many rows as the model was made of: these may be the ones that it was trained on, of which the
            test rows are to be found.
        dataset: how to read it.
        labels: the classes that the model knows.
        provenance: the ``training`` entry of the model's ``config.json``. Where the data have no split column, the
            split is drawn as it was for training, which takes the same seed and the same rows.
        template: the model's text template; the columns that it names may be absent.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: bad rows (unless ``dataset.on_bad_row`` is ``skip``), no such split, or a split that cannot be drawn
            again, because these are not the rows that the model was trained on.
    """
    dataset = dataset.without_split() if split == "all" else dataset
    cases = read_cases(data, dataset, processor_labels=labels, template=template)
    if split is None:
        is_own = cases.splits or len(cases) == sum((provenance.get("rows") or {}).values())
        split = "test" if is_own else "all"
        if not is_own:
            told = f"all {len(cases):,} rows are measured; any that it was trained on flatter it"
            print(f"{cases.source} has no split: {told}")
    drawn = split != "all" and not cases.splits
    if drawn or not cases.one_path:
        # a split was drawn from the sound rows; a case goes on without those of its images that cannot be read
        check_images(cases)
    if not drawn:
        return split, (cases if split == "all" else cases.select(split)).resolve(dataset.on_bad_row)
    cases = cases.resolve(dataset.on_bad_row).split_or_draw(dataset, provenance.get("seed", 0))
    if cases.fingerprint() != provenance.get("data_fingerprint"):
        raise ValueError(
            f"{cases.source} has no split column, and differs from what the model was trained on, so that its "
            f"{split!r} rows cannot be told. Read them as its run did (--config RUN/config.yaml), or choose "
            "split 'all' for data that the model has not seen."
        )
    return split, cases.select(split)
