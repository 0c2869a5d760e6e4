"""What is said of a row beside its class: the columns of ``predictions.csv`` before the error."""

from collections.abc import Sequence

import numpy as np

from mmfusion.decisions import Decisions
from mmfusion.inference.alarms import raised
from mmfusion.inference.familiarity import case_level
from mmfusion.inference.stream import Prediction

#: columns of a model that knows how familiar a case is.
FAMILIARITY = ("familiarity", "unlike")


def notes_of(part: Prediction, class_names: Sequence[str], decisions: Decisions | None) -> dict[str, list[str]]:
    """Column -> cell of each row of a part, empty where the row could not be read.

    ``yes`` or ``no`` of each alarm; how familiar the case is, and its modalities that are unlike the training rows.
    """
    found: dict[str, list[str]] = {}
    if decisions is not None:
        alarms = raised(decisions.points, part.probabilities, class_names).T
        for column, own in zip(decisions.columns, alarms, strict=True):
            found[column] = [
                "" if error else ("yes" if on else "no") for on, error in zip(own, part.errors, strict=True)
            ]
    if part.familiarity:
        level, unlike = case_level(part.familiarity)
        found["familiarity"] = ["" if np.isnan(each) else f"{each:.3g}" for each in level]
        found["unlike"] = unlike
    return found
