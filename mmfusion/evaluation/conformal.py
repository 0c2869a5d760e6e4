"""Split conformal prediction: sets of classes that hold the true one with a wanted probability.

The promise holds on average over cases that are exchangeable with the validation rows, not for each case, and with
``by_class`` for each true class.

Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; ``lac``: Sadinle, Lei and Wasserman,
Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, JASA 2019; ``aps``: Romano, Sesia and Candes,
Classification with Valid and Adaptive Coverage, NeurIPS 2020, without its random part, so that a case has the same set
every time; the sets of a model that is nearly always right and sure then are larger than need be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.evaluation.weighted import checked
from mmfusion.results import ClassSets, Sets

METHODS = ("lac", "aps")


@dataclass(frozen=True)
class Conformal:
    """A fitted rule.

    Attributes:
        method: ``lac`` or ``aps``.
        thresholds: (C,) largest score of a class that is in the set; infinite where there were too few rows to tell, so
            that the class is in every set.
    """

    method: str
    thresholds: NDArray[np.float64]

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """(N, C) probabilities -> (N, C), whether the class is in the set of the row. The likeliest class always is."""
        p = np.asarray(probabilities, dtype=np.float64)
        p = p / p.sum(axis=1, keepdims=True)  # as in fitting: float32 rows add up to 1 but nearly
        inside = _scores(p, self.method) <= self.thresholds
        inside[np.arange(len(p)), p.argmax(axis=1)] = True
        return inside


def saved_rule(calibration: Mapping[str, Any] | None, num_classes: int) -> Conformal | None:
    """The rule that a saved model came with: entry ``conformal`` of its calibration. None where there is none.

    Raises:
        ValueError: The entry is damaged.
    """
    saved = (calibration or {}).get("conformal")
    if saved is None:
        return None
    try:
        rule = Conformal(saved["method"], np.array(saved["thresholds"], dtype=np.float64))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"The entry calibration.conformal of the model is damaged: {error!r}.") from None
    if rule.method not in METHODS or rule.thresholds.shape != (num_classes,):
        raise ValueError(f"calibration.conformal of the model does not fit its {num_classes} classes: {saved}.")
    return rule


def conformal_quantile(scores: ArrayLike, coverage: float) -> float:
    """The smallest bound that a further, exchangeable score stays within with at least this probability.

    It is the ``ceil((n + 1) coverage)``-th smallest score, infinite where that is more than n.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"Coverage is between 0 and 1, e.g. 0.9; got {coverage}.")
    known = np.sort(np.asarray(scores, dtype=np.float64))
    rank = int(np.ceil((len(known) + 1) * coverage - 1e-9))
    return float(known[rank - 1]) if rank <= len(known) else float("inf")


def fit_conformal(
    labels: ArrayLike, probabilities: ArrayLike, *, coverage: float = 0.9, method: str = "lac", by_class: bool = False
) -> Conformal:
    """Fit the rule on validation rows.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        coverage: wanted share of sets that hold the true class.
        method: ``lac``, the smallest sets on average; ``aps``, sets that are larger for harder cases.
        by_class: a threshold for each class, fitted on its own rows (Mondrian), so that rare classes are covered too.

    Raises:
        ValueError: an unknown method, or a coverage outside (0, 1).
    """
    if method not in METHODS:
        raise ValueError(f"Unknown conformal method {method!r}; known: {', '.join(METHODS)}.")
    p = np.asarray(probabilities)
    y, p = checked(labels, p, range(p.shape[-1]))
    scores = _scores(p, method)[np.arange(len(y)), y]
    classes = range(p.shape[1])
    if by_class:
        return Conformal(method, np.array([conformal_quantile(scores[y == c], coverage) for c in classes]))
    return Conformal(method, np.full(p.shape[1], conformal_quantile(scores, coverage)))


def conformal_figures(
    rule: Conformal, labels: NDArray[np.int64], probabilities: ArrayLike, groups: ArrayLike, class_names: Sequence[str]
) -> Sets:
    """How a rule does on rows that it was not fitted on."""
    return set_figures(rule.sets(probabilities), labels, groups, class_names, np.isinf(rule.thresholds))


def set_figures(
    sets: NDArray[np.bool_],
    labels: NDArray[np.int64],
    groups: ArrayLike,
    class_names: Sequence[str],
    undecided: NDArray[np.bool_],
) -> Sets:
    """What sets (N, C) do; ``undecided`` (C,) are the classes that too few rows could leave out."""
    held, size = sets[np.arange(len(labels)), labels].astype(float), sets.sum(axis=1)
    columns = np.column_stack([held, size, size == 1])
    everyone = np.ones(len(labels))
    coverage, mean_size, single = ratio_interval(columns, everyone, groups)
    counts = np.bincount(size, minlength=len(class_names) + 1)
    per_class = {}
    for c, name in enumerate(class_names):
        covered, mean = ratio_interval(columns[:, :2], (labels == c).astype(float), groups)
        per_class[name] = ClassSets(int((labels == c).sum()), covered, mean, bool(undecided[c]))
    sizes = {str(k): int(count) for k, count in enumerate(counts) if k > 0}
    return Sets(coverage, mean_size, single, sizes, per_class)


def _scores(p: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """(N, C), how badly each class fits the row."""
    if method == "lac":
        return 1 - p
    # the probability of the class and of all likelier ones
    order = np.argsort(-p, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1).clip(max=1)
    summed[:, -1] = 1  # and not a rounding error less or more, where the bound is 1
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, summed, axis=1)
    return scores
