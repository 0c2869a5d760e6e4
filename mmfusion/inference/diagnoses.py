"""What an application gets for its rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mmfusion.inference.stream import Prediction


def diagnoses(
    rows: Sequence[Mapping[str, Any]],
    parts: Iterable[Prediction],
    labels: Sequence[str],
    notes: Callable[[Prediction], Mapping[str, Sequence[Any]]] = lambda _: {},
) -> list[dict[str, Any]]:
    """One dict per row, as :meth:`mmfusion.Predictor.predict` returns them.

    Args:
        rows: The rows, of which an ``id`` is handed through.
        parts: Their predictions, in order.
        labels: Class names, in the order of the probabilities.
        notes: What else is said of the rows of a part, name -> n values.
    """
    results: list[dict[str, Any]] = [{"id": row["id"]} if "id" in row else {} for row in rows]
    for part in parts:
        noted = notes(part)
        found = zip(results[part.rows], part.probabilities, part.inputs, part.errors, strict=True)
        for i, (result, probabilities, inputs, error) in enumerate(found):
            if error:
                result["error"] = error
                continue
            by_class = dict(zip(labels, map(float, probabilities), strict=True))
            label = max(by_class, key=by_class.__getitem__)
            result |= {"label": label, "probability": by_class[label], "probabilities": by_class, "inputs": inputs}
            result |= {name: values[i] for name, values in noted.items()}
    return results
