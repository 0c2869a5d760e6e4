"""Training inside ``fit`` without output and without changing the caller's random state."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def undisturbed(*, verbose: bool) -> Iterator[None]:
    """Preserve the random states of Python, NumPy and torch; unless ``verbose``, suppress output and logging."""
    logger = logging.getLogger("mmfusion")
    level, state, numpy_state = logger.level, random.getstate(), np.random.get_state()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        if not verbose:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            random.setstate(state)
            np.random.set_state(numpy_state)
