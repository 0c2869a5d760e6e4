"""Contribution of each column of a row to a prediction."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from mmfusion.explanation.contributions import said, shapley_value
from mmfusion.explanation.forward import attributing, captum_attr, computed_once
from mmfusion.models import FusionModel
from mmfusion.names import check_choice
from mmfusion.task import Task, task_of
from mmfusion.towers.table import known_cells

#: largest number of known cells for which all subsets are evaluated; with more, :data:`ORDERS` random orders are used.
EXACT = 8
ORDERS = 32


def column_contributions(
    model: FusionModel,
    inputs: Mapping[str, Tensor],
    target: int,
    names: Sequence[str],
    *,
    output: str = "probability",
    calibration: Mapping[str, Any] | None = None,
    task: Task | None = None,
) -> list[tuple[str, float]]:
    """Shapley values of the known cells of a sample's row (Shapley 1953), in the order of the columns.

    A removed cell counts as missing (the model uses its learned vector); all else is unchanged. Without any cell the
    row has no columns, so that the values sum to ``Contributions.drop["table"]``. Missing cells have no value. With up
    to 8 cells all subsets are evaluated; with more, the values are means over 32 fixed random orders (captum's
    ``ShapleyValueSampling``), with the same sum.

    Args:
        model: A ``FusionModel`` with a table tower.
        inputs: Keyword tensors of one sample (B = 1).
        target: Position of the class.
        names: Names of the columns, numeric ones first.
        output: ``probability`` or ``logit``.
        calibration: Calibration of the model; None uses uncalibrated probabilities.
        task: Task of the model, with its labels; None uses the model's own.

    Raises:
        ValueError: An unknown output, another number of names, or no known cell.
        ImportError: captum is not installed, and there are more than 8 known cells.
    """
    check_choice("output", output, ("probability", "logit"))
    known = known_cells(inputs)[0]
    if len(names) != len(known):
        raise ValueError(f"The row has {len(known)} columns, but {len(names)} names were given.")
    players = known.nonzero().flatten().tolist()
    if not players:
        raise ValueError("The sample has no known cell to remove.")

    def score(shown: Tensor) -> Tensor:
        """(N, players), 1 for shown cells -> the model's output for the class (N,)."""
        keep = torch.zeros(len(shown), len(known), dtype=torch.bool, device=known.device)
        keep[:, players] = shown > 0.5
        values = said(task or task_of(model), model(**_with_cells(inputs, keep)), output, calibration)
        return values[:, target].double()

    others = [tower for name, tower in model.towers.items() if name != "table"]
    with ExitStack() as stack:
        stack.enter_context(attributing(model))
        stack.enter_context(torch.no_grad())
        for tower in others:
            stack.enter_context(computed_once(tower))
        shapley = _exact if len(players) <= EXACT else _sampled
        values = shapley(score, len(players), known.device)
    return [(names[column], value) for column, value in zip(players, values, strict=True)]


def _with_cells(inputs: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """Copies of the sample, each with only the cells marked in ``keep`` (N, C + K)."""
    batch = {name: value.expand(len(keep), *value.shape[1:]) for name, value in inputs.items()}
    count = 0
    if "numeric_values" in batch:
        count = batch["numeric_values"].shape[1]
        batch["numeric_values"] = batch["numeric_values"].masked_fill(~keep[:, :count], torch.nan)
    if "category_ids" in batch:
        batch["category_ids"] = batch["category_ids"].masked_fill(~keep[:, count:], 0)
    return batch


def _exact(score: Any, count: int, device: torch.device) -> list[float]:
    sets = [frozenset(s) for size in range(count + 1) for s in itertools.combinations(range(count), size)]
    shown = torch.tensor([[player in s for player in range(count)] for s in sets], device=device).float()
    value = dict(zip(sets, score(shown).tolist(), strict=True))
    return [shapley_value(player, value) for player in range(count)]


def _sampled(score: Any, count: int, device: torch.device) -> list[float]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the orders are drawn on the CPU
        method = captum_attr().ShapleyValueSampling(score)
        found = method.attribute(
            torch.ones(1, count, device=device), baselines=0.0, n_samples=ORDERS, perturbations_per_eval=64
        )
    return found[0].tolist()
