"""Hooks for hidden states in newer versions of transformers."""

from typing import Any


def install_hooks(net: Any) -> None:
    """Install the hooks now, since the first forward would do so under a lock that compilers cannot trace."""
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:  # not every version uses hooks
        return
    maybe_install_capturing_hooks(net)
