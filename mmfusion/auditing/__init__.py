"""The audit of a data set: what would make figures measured on it untrue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {"audit": "run"}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.auditing.run import audit as audit

__getattr__, __dir__ = exports(__name__, _MODULES)
