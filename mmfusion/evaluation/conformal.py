"""Split conformal prediction: sets of classes that contain the true one with a given probability.

The guarantee is marginal over cases exchangeable with the validation rows (with ``by_class``, within each true class);
it does not hold for individual cases.

Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; ``lac``: Sadinle, Lei and Wasserman,
Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, JASA 2019; ``aps``: Romano, Sesia and Candes,
Classification with Valid and Adaptive Coverage, NeurIPS 2020, without randomization, so that results are reproducible;
its sets are larger than necessary for very accurate, confident models.
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
    """A fitted conformal rule.

    Attributes:
        method: ``lac`` or ``aps``.
        thresholds: (C,) largest score of a class in the set; infinite if there were too few rows, so that the class is
            in every set.
    """

    method: str
    thresholds: NDArray[np.float64]

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """(N, C) probabilities -> (N, C) bool, whether each class is in the set. The top class always is."""
        p = np.asarray(probabilities, dtype=np.float64)
        p = p / p.sum(axis=1, keepdims=True)  # as in fitting: float32 rows sum to 1 only approximately
        inside = _scores(p, self.method) <= self.thresholds
        inside[np.arange(len(p)), p.argmax(axis=1)] = True
        return inside


def saved_rule(calibration: Mapping[str, Any] | None, num_classes: int) -> Conformal | None:
    """The conformal rule saved with a model (entry ``conformal`` of its calibration), or None.

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
        raise ValueError(f"calibration.conformal of the model does not match its {num_classes} classes: {saved}.")
    return rule


def conformal_quantile(scores: ArrayLike, coverage: float) -> float:
    """The smallest bound that a new exchangeable score does not exceed with at least this probability.

    This is the ``ceil((n + 1) coverage)``-th smallest score, or infinity if that is more than n.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"Coverage must be between 0 and 1, e.g. 0.9; got {coverage}.")
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
        coverage: Target share of sets that contain the true class.
        method: ``lac``, the smallest sets on average; ``aps``, larger sets for harder cases.
        by_class: Fit a threshold per class on its own rows (Mondrian), so that rare classes are covered too.

    Raises:
        ValueError: The method is unknown, or the coverage is outside (0, 1).
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
    """Coverage and set sizes of a rule on rows that it was not fitted on."""
    return set_figures(rule.sets(probabilities), labels, groups, class_names, np.isinf(rule.thresholds))


def set_figures(
    sets: NDArray[np.bool_],
    labels: NDArray[np.int64],
    groups: ArrayLike,
    class_names: Sequence[str],
    undecided: NDArray[np.bool_],
) -> Sets:
    """Coverage and sizes of sets (N, C); ``undecided`` (C,) are classes with too few rows to exclude."""
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
    """(N, C) nonconformity score of each class."""
    if method == "lac":
        return 1 - p
    # probability of the class and all more likely ones
    order = np.argsort(-p, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1).clip(max=1)
    summed[:, -1] = 1  # exactly, since the bound may be 1
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, summed, axis=1)
    return scores
