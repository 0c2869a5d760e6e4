"""``export(config)``: export of a saved model."""

from mmfusion.exporting.artifact import Exported, export_model
from mmfusion.exporting.config import ExportConfig


def export(config: ExportConfig) -> Exported:
    """Export a trained model to ONNX or torch.export, and compare what was written with the model."""
    print(f"exporting {config.model} to {config.format}: the model is traced, which takes a minute or more")
    return export_model(**vars(config))
