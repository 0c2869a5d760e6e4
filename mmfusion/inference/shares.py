"""Router and gate values of a model per row."""

from torch import Tensor

from mmfusion.outputs import FusionOutput

#: Name of the router's probabilities.
EXPERTS = "experts"

#: A gate with more values has one per feature dimension and is represented by their mean.
MOST_VALUES = 6


def shares_of(output: FusionOutput) -> dict[str, Tensor]:
    """Router and gate values of each row of a batch, in float32; empty for a model without them.

    ``experts`` are the router's probabilities (B, K). Each gate has its name and values (B, n), or their mean if there
    are more than :data:`MOST_VALUES`.
    """
    shares = {name: gate.float().unsqueeze(-1).flatten(1) for name, gate in (output.gates or {}).items()}
    shares = {name: gate if gate.shape[1] <= MOST_VALUES else gate.mean(1, True) for name, gate in shares.items()}
    return shares if output.router_probs is None else {EXPERTS: output.router_probs.float(), **shares}
