"""Export: a saved model as one program, for ONNX Runtime or ``torch.export``, checked against the model it came from.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "Exported": "artifact",
    "export_model": "artifact",
    "write_program": "program",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.exporting.artifact import Exported as Exported
    from mmfusion.exporting.artifact import export_model as export_model
    from mmfusion.exporting.program import write_program as write_program

__getattr__, __dir__ = exports(__name__, _MODULES)
