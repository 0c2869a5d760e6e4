"""Resolves settings that depend on the rows: columns, parts, initial weights; and builds the model from them."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import set_seed

from mmfusion.data import CaseTable
from mmfusion.inference.predictor import Predictor
from mmfusion.training.build import build_predictor, columns_of, with_parts
from mmfusion.training.columns import ChosenColumns
from mmfusion.training.config import RunConfig
from mmfusion.training.provenance import card_of, provenance_of
from mmfusion.training.weights import Start, encoder_weights, tower_starts


@dataclass(frozen=True)
class Settled:
    """A run with settings resolved from its rows.

    Attributes:
        config: The run with the parts that its rows require.
        columns: The input columns.
        told: Log lines about the parts.
        starts: Initial weights of each tower.
        provenance: The ``training`` entry of the saved model.
    """

    config: RunConfig
    columns: ChosenColumns
    told: list[str]
    starts: list[Start]
    provenance: dict[str, Any]

    def predictor(self, cases: CaseTable, *, aux_heads: bool = False) -> Predictor:
        """Build the model from the run's seed; see :func:`~mmfusion.training.build.build_predictor`."""
        made: dict[str, Any] = {"table": self.columns.table, "weights": encoder_weights(self.starts)}
        made |= {"provenance": self.provenance, "card": card_of(self.config)}
        set_seed(self.config.seed)
        return build_predictor(self.config, cases, aux_heads=aux_heads, **made)


def settle(config: RunConfig, cases: CaseTable, processes: int = 1) -> Settled:
    """Resolve the settings of a run that depend on its rows.

    Raises:
        ValueError: Columns are unsuitable, or tower weights would have to be downloaded without permission.
    """
    columns = columns_of(config, cases)
    config, told = with_parts(config, cases, columns.table)
    if config.train.batch_size > (count := cases.splits["train"]):  # only for the default; an explicit size is rejected
        config = replace(config, train=replace(config.train, batch_size=count))
        told.append(f"only {count} training rows: using all of them in one step (train.batch_size {count})")
    starts = tower_starts(config)
    return Settled(config, columns, told, starts, provenance_of(config, cases, starts, processes, columns.table))
