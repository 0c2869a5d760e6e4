"""Contribution of each modality to a prediction."""

import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmfusion.explanation.forward import attributing, computed_once, has_modality
from mmfusion.models import FusionModel
from mmfusion.names import check_choice
from mmfusion.outputs import FusionOutput
from mmfusion.task import Task, task_of


@dataclass(frozen=True)
class Contributions:
    """Contributions of the modalities of one sample to one class.

    Attributes:
        values: Joined names of the given modalities (``image+text``, ``image``, ``text``, ``none``) -> the probability
            (or logit) of the class.
        drop: modality -> decrease if only this modality is removed.
        shapley: modality -> its Shapley value (Shapley 1953), the average increase over all orders of adding the
            modalities. They sum to the difference between all and none.
        interaction: With two modalities, v(both) - v(image) - v(text) + v(none): above 0 they are complementary, below
            0 redundant; otherwise None.
    """

    values: dict[str, float]
    drop: dict[str, float]
    shapley: dict[str, float]
    interaction: float | None


def modality_contributions(
    model: FusionModel,
    inputs: Mapping[str, Tensor],
    target: int,
    *,
    output: str = "probability",
    calibration: Mapping[str, Any] | None = None,
    task: Task | None = None,
) -> Contributions:
    """Evaluate the model with every subset of the sample's modalities.

    A removed modality counts as missing (``<modality>_present``): the model uses its learned token. That token means
    "unknown" only if it was trained, with ``modality_dropout`` above 0 or rows that lack the modality.

    Args:
        model: A ``FusionModel``; n modalities take 2^n evaluations of one batch.
        inputs: Keyword tensors of one sample (B = 1). Modalities that the sample lacks are ignored.
        target: Position of the class.
        output: ``probability`` or ``logit``.
        calibration: Calibration of the model; None uses uncalibrated probabilities.
        task: Task of the model, with its labels; None uses the model's own.

    Raises:
        ValueError: Unknown output, or the sample has no modality.
    """
    check_choice("output", output, ("probability", "logit"))
    players = [name for name in model.towers if has_modality(model, inputs, name)]
    if not players:
        raise ValueError(f"The sample has none of {', '.join(model.towers)} to remove.")
    sets = [frozenset(s) for count in range(len(players) + 1) for s in itertools.combinations(players, count)]
    batch = {name: value.expand(len(sets), *value.shape[1:]) for name, value in inputs.items()}
    device = next(iter(inputs.values())).device
    for name in players:
        batch[f"{name}_present"] = torch.tensor([name in shown for shown in sets], device=device)
    tower: Any = getattr(model, "image_tower", None) if "image" in players else None
    with attributing(model), torch.no_grad(), computed_once(tower):
        scores = said(task or task_of(model), model(**batch), output, calibration)[:, target]
    value = dict(zip(sets, scores.double().tolist(), strict=True))
    everything = frozenset(players)
    pair = len(players) == 2
    one, other = (frozenset([name]) for name in players) if pair else (everything, everything)
    return Contributions(
        values={"+".join(p for p in players if p in shown) or "none": value[shown] for shown in reversed(sets)},
        drop={name: value[everything] - value[everything - {name}] for name in players},
        shapley={name: shapley_value(name, value) for name in players},
        interaction=value[everything] - value[one] - value[other] + value[frozenset()] if pair else None,
    )


def said(task: Task, output: FusionOutput, kind: str, calibration: Mapping[str, Any] | None) -> Tensor:
    """The ``probability`` (or value) or the ``logit`` of each label in an output."""
    raw = task.raw(output)
    return task.spoken(raw, calibration) if kind == "probability" else task.evidence(raw).float()


def shapley_value(player: Hashable, value: Mapping[frozenset[Any], float]) -> float:
    """sum_S |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) over the sets S without i.

    Args:
        player: The player i.
        value: Value v of every set of the n players.
    """
    n, total = max(map(len, value)), 0.0
    for shown, worth in value.items():
        if player not in shown:
            weight = math.factorial(len(shown)) * math.factorial(n - len(shown) - 1) / math.factorial(n)
            total += weight * (value[shown | {player}] - worth)
    return total
