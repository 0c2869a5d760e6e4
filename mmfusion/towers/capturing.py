"""Hidden states of transformers models, which their newer versions collect with hooks."""

from typing import Any


def install_hooks(net: Any) -> None:
    """Install the hooks that collect hidden states now: the first forward would, under a lock no compiler traces."""
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:  # not every version collects them with hooks
        return
    maybe_install_capturing_hooks(net)
