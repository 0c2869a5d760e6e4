"""Export of saved models to ONNX Runtime or ``torch.export``, compared with the original."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.exporting.artifact import Exported as Exported, export_model as export_model
    from mmfusion.exporting.program import write_program as write_program

__getattr__, __dir__ = attach(__name__)
