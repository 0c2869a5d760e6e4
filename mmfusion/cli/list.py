"""Names of models and parts: what ``mmfusion list`` shows."""

from __future__ import annotations

import sys
from typing import Any, cast

from mmfusion import registry
from mmfusion.cli.config import ListConfig, Text
from mmfusion.models import list_models
from mmfusion.names import did_you_mean


def list_names(config: ListConfig) -> Text:
    """List models, or the parts they are made of.

    Raises:
        ValueError: No name matches the pattern, or ``pretrained`` goes with another kind than ``model``.
    """
    if config.kind != "model" and config.pretrained:
        raise ValueError(f"--pretrained lists models; it does not go with --kind {config.kind}.")
    known = list_models(pretrained=config.pretrained) if config.kind == "model" else registry.names(config.kind)
    found = [name for name in known if registry.matches(name, config.pattern)]
    if not known:
        print(f"This version brings no {'trained weights' if config.pretrained else config.kind}.", file=sys.stderr)
    elif not found:
        raise ValueError(f"No {config.kind} matches {config.pattern!r}; {did_you_mean(config.pattern, known)}")
    lines = ["  ".join([name, *cast(Any, name).facts()]) if config.pretrained else name for name in found]
    return Text("\n".join(lines))
