"""The audit of a data set: what would make figures measured on it untrue."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.auditing.run import audit as audit

__getattr__, __dir__ = attach(__name__)
