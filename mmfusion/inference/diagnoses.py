"""Results of ``Predictor.predict`` as dicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.inference.stream import Prediction
from mmfusion.task import Task


def diagnoses(
    rows: Sequence[Mapping[str, Any]],
    parts: Iterable[Prediction],
    task: Task,
    notes: Callable[[Prediction], Mapping[str, Sequence[Any]]] = lambda _: {},
) -> list[dict[str, Any]]:
    """One dict per row, as :meth:`mmfusion.Predictor.predict` returns them.

    Args:
        rows: The rows; an ``id`` is copied.
        parts: Their predictions, in order.
        task: Task of the model.
        notes: Additional values for the rows of a part, name -> n values.
    """
    results: list[dict[str, Any]] = [{"id": row["id"]} if "id" in row else {} for row in rows]
    for part in parts:
        noted = notes(part)
        found = zip(results[part.rows], part.probabilities, part.inputs, part.errors, strict=True)
        for i, (result, probabilities, inputs, error) in enumerate(found):
            if error:
                result["error"] = error
                continue
            result |= task.told(probabilities) | {"inputs": inputs}
            result |= {name: values[i] for name, values in noted.items()}
    return results


def probabilities_of(results: Sequence[Mapping[str, Any]], task: Task) -> NDArray[np.float64]:
    """(N, C) probabilities from the results of :func:`diagnoses`.

    Raises:
        ValueError: The task has no probabilities, or a row could not be read.
    """
    if not task.has_probabilities:
        raise ValueError(f"The task {task.name} has no probabilities; use predict for values and intervals.")
    for number, row in enumerate(results, start=1):
        if "error" in row:
            raise ValueError(f"Row {row.get('id', number)} cannot be predicted: {row['error']}")
    return np.array([list(row["probabilities"].values()) for row in results]).reshape(-1, len(task.labels))
