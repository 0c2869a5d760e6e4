"""What an application gets for its rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfusion.inference.stream import Prediction
from mmfusion.task import Task


def diagnoses(rows: Sequence[Mapping[str, Any]], parts: Iterable[Prediction], task: Task) -> list[dict[str, Any]]:
    """One dict per row, as :meth:`mmfusion.Predictor.predict` returns them.

    Args:
        rows: The rows, of which an ``id`` is handed through.
        parts: Their predictions, in order.
        task: What the answers are.
    """
    results: list[dict[str, Any]] = [{"id": row["id"]} if "id" in row else {} for row in rows]
    for part in parts:
        found = zip(results[part.rows], part.probabilities, part.inputs, part.errors, strict=True)
        for result, probabilities, inputs, error in found:
            if error:
                result["error"] = error
                continue
            result |= task.told(probabilities) | {"inputs": inputs}
    return results
