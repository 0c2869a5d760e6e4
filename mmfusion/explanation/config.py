"""Options of ``mmfusion explain``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class ExplainConfig:
    """Options of an explanation.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: Folder of images, folder of a data set, a table, or one image. Labels and splits are not needed.
        output: Folder for a picture and a JSON file per row, ``<id>.png`` and ``<id>.json``.
        rows: Ids of the rows to explain, in this order; null takes the first ``limit``.
        limit: Maximum number of rows.
        label: Class to explain; null takes the predicted class of each row.
        method: Method of the heat map: ``grad_cam``, ``integrated_gradients`` or ``occlusion``.
        level: Backbone level (CNN stage, transformer block) for ``grad_cam``: -1 is the last, the usual choice; -2 the
            one before, twice as fine in a CNN, which helps with small inputs.
        text_method: Method for the words: ``integrated_gradients`` or ``gradient_x_input``.
        dataset: How to read the data; the defaults are the model's training settings.
    """

    model: str
    data: str
    output: str = "explanations"
    rows: list[str] | None = None
    limit: int | None = 16
    label: str | None = None
    method: str = "grad_cam"
    level: int = -1
    text_method: str = "integrated_gradients"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
