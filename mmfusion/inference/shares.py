"""What router and gates of a model give each row."""

from torch import Tensor

from mmfusion.outputs import FusionOutput

#: name of the router's probabilities among the shares.
EXPERTS = "experts"

#: a gate of more values than this has one per feature dimension; it counts by their mean.
MOST_VALUES = 6


def shares_of(output: FusionOutput) -> dict[str, Tensor]:
    """What each row of a batch was given by router and gates, in float32; empty for a model that has neither.

    ``experts`` are the router's probabilities (B, K). Each gate has its name, (B, n): its values, or their mean where
    there are more than :data:`MOST_VALUES`.
    """
    shares = {name: gate.float().unsqueeze(-1).flatten(1) for name, gate in (output.gates or {}).items()}
    shares = {name: gate if gate.shape[1] <= MOST_VALUES else gate.mean(1, True) for name, gate in shares.items()}
    return shares if output.router_probs is None else {EXPERTS: output.router_probs.float(), **shares}
