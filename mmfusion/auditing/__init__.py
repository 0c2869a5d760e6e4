"""Audit of a data set: leaks, duplicates, missing data and rare classes that invalidate metrics."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.auditing.config import AuditConfig as AuditConfig
    from mmfusion.auditing.findings import Audit as Audit, Finding as Finding
    from mmfusion.auditing.run import audit as audit

__getattr__, __dir__ = attach(__name__)
