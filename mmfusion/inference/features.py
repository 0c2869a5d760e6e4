"""What the towers of a trained model make of rows."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from tqdm.auto import tqdm

from mmfusion.data import CaseTable
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import AllRows
from mmfusion.inference.stream import batches
from mmfusion.outputs import Features


def stream_features(
    predictor: Predictor, cases: CaseTable, *, description: str, batch_size: int = 64, workers: int = 0
) -> Iterator[tuple[dict[str, Tensor], dict[str, Features], list[str | None]]]:
    """Encode the rows of a table, batch by batch, in their order.

    Args:
        predictor: One trained model, which is not an exported one.
        cases: The rows.
        description: What the progress bar says.
        batch_size: Rows per step.
        workers: Loader processes.

    Yields:
        What the model was given and modality -> what its tower made of it, of the rows that could be read, both empty
        where none could; and the errors of all rows, None of one that could be read.
    """
    model, rows = predictor.network().eval(), AllRows(cases, predictor.processor)
    with tqdm(total=len(rows), desc=description, unit="row", disable=None) as bar:
        for batch, errors in batches(rows, rows.collate, batch_size=batch_size, workers=workers):
            inputs: dict[str, Any] = {name: x for name, x in (batch or {}).items() if name != "labels"}
            inputs = send_to_device(inputs, model.device)
            with torch.inference_mode():
                features = model.tower_features(**inputs) if inputs else {}
            yield inputs, features, errors
            bar.update(len(errors))
