"""What is said of a row beside its class: the columns of ``predictions.csv`` before the error."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfusion.decisions import Decisions
from mmfusion.inference.alarms import alarm_score
from mmfusion.inference.familiarity import case_level
from mmfusion.inference.stream import Prediction

#: columns of a model that knows how familiar a case is.
FAMILIARITY = ("familiarity", "unlike")


def notes_of(part: Prediction, class_names: Sequence[str], decisions: Decisions) -> dict[str, list[Any]]:
    """Column -> what is said of each row of a part.

    ``yes`` or ``no`` of each alarm, empty of a row with an error; how familiar the case is, from 0 to 1, None where it
    is not known; and its modalities that are unlike the training rows.
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
