"""Additional columns of ``predictions.csv`` before the error: alarm and familiarity."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfusion.decisions import Decisions
from mmfusion.inference.alarms import alarm_score
from mmfusion.inference.familiarity import case_level
from mmfusion.inference.stream import Prediction

#: Columns of a model with a familiarity detector.
FAMILIARITY = ("familiarity", "unlike")


def notes_of(part: Prediction, class_names: Sequence[str], decisions: Decisions) -> dict[str, list[Any]]:
    """Column -> value for each row of a part.

    ``yes`` or ``no`` for each alarm, empty for rows with an error; familiarity from 0 to 1, None if unknown; and the
    modalities unlike the training rows.
    """
    found: dict[str, list[Any]] = {}
    for column, point in zip(decisions.columns, decisions.points, strict=True):
        alarms = alarm_score(part.probabilities, point.alarm, class_names) >= point.threshold
        told = zip(alarms, part.errors, strict=True)
        found[column] = ["" if error else "yes" if on else "no" for on, error in told]
    if part.familiarity:
        level, unlike = case_level(part.familiarity)
        found["familiarity"] = [None if np.isnan(each) else float(f"{each:.3g}") for each in level]
        found["unlike"] = unlike
    return found
