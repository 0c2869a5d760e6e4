"""The audit of a data set: what would make metrics measured on it untrue.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {"AuditConfig": "config", "Audit": "findings", "Finding": "findings", "audit": "run"}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.auditing.config import AuditConfig as AuditConfig
    from mmfusion.auditing.findings import Audit as Audit
    from mmfusion.auditing.findings import Finding as Finding
    from mmfusion.auditing.run import audit as audit

__getattr__, __dir__ = exports(__name__, _MODULES)
