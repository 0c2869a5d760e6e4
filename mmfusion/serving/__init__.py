"""Serving: prediction of single cases for applications, and the web page of ``mmfusion app``."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.serving.diagnosis import Diagnosis as Diagnosis, diagnose as diagnose

__getattr__, __dir__ = attach(__name__)
