"""Options of ``mmfusion validate``. Imports no heavy library."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting
from mmfusion.decisions import check_rules


@dataclass
class ValidateConfig:
    """Options of ``mmfusion validate``.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: Root folder of the other site's data set, or its table.
        reference: Data of the model's own site to compare with; None uses the description saved with the model.
        output: Folder for ``validation.md``, ``validation.json``, ``predictions.csv`` and the chosen update.
        site: Name of the site; None uses that of the data.
        local: Share of the groups (patients) to fit updates on; the others evaluate them. Above 1, a number of rows.
        alarm: Classes that raise an alarm together, for ``operating_points``; empty treats each class separately.
        operating_points: Rules, ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``: thresholds of
            the updated model, chosen on the fitting cases. Empty uses the rules of the model's own operating points.
        store: Copy the chosen update into the model's folder, for ``--calibration SITE``.
        split: Rows of the data; default ``all``.
        seed: Seed of the division into fitting and evaluation cases.
        batch_size: Rows per step.
        dataset: How to read the data; the defaults are the model's training settings.
    """

    model: str
    data: str
    reference: str | None = None
    output: str = "validation"
    site: str | None = None
    local: float = 0.5
    alarm: list[str] = field(default_factory=list)
    operating_points: list[str] = field(default_factory=list)
    store: bool = False
    split: str = "all"
    seed: int = 0
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        self.reference = as_setting(self.reference) if self.reference is not None else None
        check_rules(self.operating_points, None, self.alarm)
        if self.alarm and not self.operating_points:
            raise ValueError("alarm needs operating points; give rules with --operating_points.")
        if not self.local > 0 or self.local == 1:
            raise ValueError(f"local must be a share of the groups below 1, or a number of rows; got {self.local:g}.")
