"""Export: a saved model as one program, for ONNX Runtime or ``torch.export``, checked against the model it came from.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "Exported": "artifact",
    "export_model": "artifact",
    "OnnxModel": "onnx_model",
    "write_program": "program",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.export.artifact import Exported as Exported
    from mmfusion.export.artifact import export_model as export_model
    from mmfusion.export.onnx_model import OnnxModel as OnnxModel
    from mmfusion.export.program import write_program as write_program

__getattr__, __dir__ = exports(__name__, _MODULES)
