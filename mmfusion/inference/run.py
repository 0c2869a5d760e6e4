"""``predict(config)``: from a folder of images or a table to a CSV of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmfusion.data import DatasetConfig
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.config import PredictConfig
from mmfusion.inference.predictions_csv import PredictionWriter
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.reading import read_unlabelled
from mmfusion.inference.rows import AllRows


@dataclass(frozen=True)
class Predicted:
    """What a prediction wrote.

    Attributes:
        path: The CSV file.
        rows: How many rows it has.
        unreadable: How many of them could not be read, and hold their reason under ``error``.
    """

    path: Path
    rows: int
    unreadable: int

    def summary(self) -> str:
        """Rows and file, in one line."""
        failed = f"; {self.unreadable:,} could not be read, see the column error" if self.unreadable else ""
        return f"{self.rows:,} rows in {self.path}{failed}"


def open_predictor(names: Sequence[str], *, calibrated: bool = True) -> Predictor:
    """A trained model, or several as an ensemble, as commands run it: in the memory format that the machine likes."""
    return Predictor.from_pretrained(names, channels_last=resolve_channels_last(None), calibrated=calibrated)


def predict(config: PredictConfig) -> Predicted:
    """Predict a folder of images or a table, and write a CSV."""
    predictor = open_predictor(config.model, calibrated=config.calibrated)
    print(f"predicting {config.data} with {predictor}")
    options: dict[str, Any] = {"tta": config.tta, "batch_size": config.batch_size}
    return predict_path(predictor, config.data, config.output, dataset=config.dataset, **options)


def predict_path(
    predictor: Predictor,
    path: str | Path,
    output: str | Path,
    *,
    dataset: DatasetConfig | None = None,
    tta: bool = False,
    batch_size: int = 64,
) -> Predicted:
    """Diagnose a folder of images or a table, and write ``id, label, probability, p_<class>..., error``.

    Rows keep their order; one that cannot be read has its reason under ``error``.

    Args:
        predictor: The model, or several.
        path: Folder of images, folder of a data set, or its table. Labels and splits are not needed.
        output: CSV file to write.
        dataset: How to read the data; None reads them as the training data were. A folder that holds no table is
            read as images alone.
        tta: Average over test-time augmentations.
        batch_size: Rows per step.

    Raises:
        FileNotFoundError: There are no such data.
        ValueError: The data as a whole cannot be read, e.g. a column is missing.
    """
    cases = read_unlabelled(path, dataset or predictor.dataset, predictor.labels)
    rows = [AllRows(cases, member.processor, refuse_empty=True) for member in predictor.members]
    ids, unreadable = rows[0].ids, 0
    with (
        PredictionWriter(output, predictor.labels) as writer,
        tqdm(total=len(ids), desc="Predicting", unit="row", disable=None) as bar,
    ):
        for part in predictor.stream(rows, tta=tta, batch_size=batch_size):
            writer.write(ids[part.start : part.start + len(part.errors)], part)
            unreadable += sum(error is not None for error in part.errors)
            bar.update(len(part.errors))
    return Predicted(Path(output), len(ids), unreadable)
