"""Tower features of a trained model."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from mmfusion.data import CaseTable
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import AllRows
from mmfusion.inference.stream import batches
from mmfusion.outputs import Features
from mmfusion.progress import progress


def stream_features(
    predictor: Predictor, cases: CaseTable, *, description: str, batch_size: int = 64, workers: int = 0
) -> Iterator[tuple[dict[str, Tensor], dict[str, Features], list[str | None]]]:
    """Encode the rows of a table, batch by batch, in order.

    Args:
        predictor: A single trained model, not an exported one.
        cases: The rows.
        description: Label of the progress bar.
        batch_size: Rows per step.
        workers: Loader processes.

    Yields:
        Model inputs and modality -> tower features of the readable rows, both empty if there are none; and the errors
        of all rows, None for readable ones.
    """
    model, rows = predictor.network().eval(), AllRows(cases, predictor.processor)
    with progress(description, len(rows)) as bar:
        for batch, errors in batches(rows, rows.collate, batch_size=batch_size, workers=workers):
            inputs: dict[str, Any] = {name: x for name, x in (batch or {}).items() if name != "labels"}
            inputs = send_to_device(inputs, model.device)
            with torch.inference_mode():
                features = model.tower_features(**inputs) if inputs else {}
            yield inputs, features, errors
            bar.update(len(errors))
