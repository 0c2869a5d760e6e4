"""Options of a validation at another site. Importing this module loads no heavy library."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class ValidateConfig:
    """Options of validate.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: root folder of the other site's data set, or its table.
        reference: data of the site that the model is from, to hold beside it; None takes what the model knows of it.
        output: folder for ``validation.md``, ``validation.json``, ``predictions.csv`` and the chosen update.
        site: name of the site; None takes that of the data.
        local: share of the groups (patients) that updates are fitted on, the others judge them; above 1 a number of
            rows.
        store: copy the chosen update into the model's own folder, for ``--calibration SITE``.
        split: rows of the data; ``all`` unless said otherwise.
        seed: of the division into cases to fit on and to judge on.
        batch_size: rows per step.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    reference: str | None = None
    output: str = "validation"
    site: str | None = None
    local: float = 0.5
    store: bool = False
    split: str = "all"
    seed: int = 0
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        self.reference = as_setting(self.reference) if self.reference is not None else None
        if not self.local > 0 or self.local == 1:
            raise ValueError(f"local is a share of the groups below 1, or a number of rows; got {self.local:g}.")
