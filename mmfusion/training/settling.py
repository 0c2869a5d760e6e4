"""What a run's rows settle of it: columns, parts, the start of each tower; and the model that is made of all that."""

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
    """A run whose rows are known.

    Attributes:
        config: The run, with the parts that its rows ask for.
        columns: The columns that the model reads.
        told: What is to be told of the parts.
        starts: What each tower starts from.
        provenance: The ``training`` entry of the saved model.
    """

    config: RunConfig
    columns: ChosenColumns
    told: list[str]
    starts: list[Start]
    provenance: dict[str, Any]

    def predictor(self, cases: CaseTable, *, aux_heads: bool = False) -> Predictor:
        """The model to train, from the run's seed; see :func:`~mmfusion.training.build.build_predictor`."""
        made: dict[str, Any] = {"table": self.columns.table, "weights": encoder_weights(self.starts)}
        made |= {"provenance": self.provenance, "card": card_of(self.config)}
        set_seed(self.config.seed)
        return build_predictor(self.config, cases, aux_heads=aux_heads, **made)


def settle(config: RunConfig, cases: CaseTable, processes: int = 1) -> Settled:
    """Settle what a run leaves open, from its rows.

    Raises:
        ValueError: Columns that may not be inputs, or tower weights that nobody said to fetch.
    """
    columns = columns_of(config, cases)
    config, told = with_parts(config, cases, columns.table)
    if config.train.batch_size > (count := cases.splits["train"]):  # the default; a size that is given is refused
        config = replace(config, train=replace(config.train, batch_size=count))
        told.append(f"there are only {count} training rows: all of them make one step (train.batch_size {count})")
    starts = tower_starts(config)
    return Settled(config, columns, told, starts, provenance_of(config, cases, starts, processes, columns.table))
