"""``explain(config)``: explain rows of a data set, each in a figure and a JSON file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion.data import DatasetConfig
from mmfusion.data.formats import file_name
from mmfusion.data.memory import DataSource
from mmfusion.explanation.config import ExplainConfig
from mmfusion.explanation.explanation import explain_item, explainable
from mmfusion.explanation.overlay import coarse_cells, save_explanation
from mmfusion.files import sole_writer
from mmfusion.inference.columns import column_lines, warn_of
from mmfusion.inference.contents import tell_contents, template_of, with_template
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.reading import read_unlabelled
from mmfusion.inference.rows import ROW_ERRORS, AllRows, none_readable, tell_notices
from mmfusion.inference.run import open_predictor
from mmfusion.names import did_you_mean, one_line
from mmfusion.progress import tracked


@dataclass(frozen=True)
class Explained:
    """Result of ``explain``.

    Attributes:
        folder: Folder of the files.
        rows: Id -> reason why the row could not be read, or None.
    """

    folder: Path
    rows: dict[str, str | None]

    @property
    def failed(self) -> dict[str, str]:
        """Id -> reason of each row that could not be read."""
        return {id_: reason for id_, reason in self.rows.items() if reason is not None}

    @property
    def failure(self) -> str:
        """Why the command fails: every row has an error; else empty."""
        return none_readable(len(self.rows), len(self.failed), next(iter(self.failed.values()), None))

    def summary(self) -> str:
        """The rows that could not be read, and how many were explained."""
        explained = f"{len(self.rows) - len(self.failed):,} rows explained in {self.folder}"
        lines = [f"  {id_}: {reason}" for id_, reason in self.failed.items()]
        return "\n".join([*lines, f"{explained}; {len(self.failed):,} could not be read"])


def explain(config: ExplainConfig) -> Explained:
    """Explain predictions: heat maps, words, columns, and contributions of the modalities."""
    predictor = open_predictor([config.model])
    print(f"explaining {config.data} with {config.model}")
    return explain_path(predictor, **{name: value for name, value in vars(config).items() if name != "model"})


@sole_writer
def explain_path(
    predictor: Predictor,
    data: DataSource,
    output: str | Path,
    *,
    rows: Sequence[str] | None = None,
    limit: int | None = None,
    dataset: DatasetConfig | None = None,
    **options: Any,
) -> Explained:
    """Explain rows of a data set, and write ``<id>.png`` and ``<id>.json`` for each.

    The arguments are those of :class:`~mmfusion.explanation.config.ExplainConfig`; without ``rows`` and ``limit`` all
    rows are explained.

    Raises:
        FileNotFoundError: The data do not exist.
        ValueError: Unknown row, class or method, or a model that cannot be explained.
        ImportError: captum is not installed.
    """
    explainable(predictor)
    if options.get("label") is not None:
        predictor.processor.label_id(options["label"])
    dataset = dataset or predictor.dataset
    predictor = with_template(predictor, dataset)
    cases = read_unlabelled(data, dataset, predictor.labels, template_of(predictor))
    tell_contents(predictor, cases)
    warn_of(column_lines([predictor.processor], dataset, cases.metadata))
    encoded = AllRows(cases, predictor.processor, refuse_empty=True)
    places: dict[str, int] = {}  # position of the first row of each id
    for place, id_ in enumerate(encoded.ids):
        places.setdefault(id_, place)
    if unknown := [id_ for id_ in rows or () if id_ not in places]:
        raise ValueError(f"{cases.source} has no row {unknown[0]!r}; {did_you_mean(unknown[0], list(places))}")
    images = cases.frame["image"].tolist()
    results: dict[str, str | None] = {}
    names: set[str] = set()
    cells = ""
    wanted = list(places if rows is None else rows)[:limit]
    for id_ in tracked(wanted, "Explaining", len(wanted)):
        try:
            item = encoded[places[id_]]
        except ROW_ERRORS as error:
            results[id_] = one_line(error, 500)
            continue
        image = images[places[id_]]
        original = cases.image_root / image if isinstance(image, str) else None
        explanation = explain_item(predictor, item, image=original, **options)
        cells = cells or coarse_cells(explanation)
        save_explanation(explanation, Path(output) / file_name(id_, names))
        results[id_] = None
    if cells:
        finer = "--level -2 (twice as fine in a CNN) or " if options.get("level", -1) == -1 else ""
        print(f"heat maps of {cells} cells say little about the place: try {finer}a model of larger images")
    tell_notices([encoded])
    return Explained(Path(output), results)
