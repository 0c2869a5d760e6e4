"""What an evaluation is told. Light to import."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting
from mmfusion.decisions import check_by, check_rules


@dataclass
class EvaluateConfig:
    """Options of an evaluation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict their mean.
        data: root folder of the data set.
        split: rows to evaluate on: ``train``, ``val``, ``test`` or ``all``; None takes ``test``, and ``all`` of data
            without a split that are not those of the model's training.
        output: folder for the results; None takes ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: rows per step.
        tta: average over test-time augmentations; null does as the model was saved.
        calibrated: apply the temperature that was fitted at the end of training, and the part of the prior that was
            put back, where there is one.
        calibration: update for another site, as ``mmfusion validate`` makes it: its file, or the name of one that is
            stored with the model.
        subgroups: columns whose values part the rows; numbers go into thirds, ``age:10`` into bands of ten.
        validation: fit conformal sets and decision thresholds on the rows of ``val``, and try them on the others.
        coverage: wanted share of conformal sets with the true class.
        sensitivity: wanted of each class's decision threshold.
        alarm: classes to act on together (``mel bcc akiec``), of which net benefit is told; the sum of their
            probabilities counts.
        operating_points: rules, ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``, for each of
            which a threshold is chosen on the rows of ``val`` (of ``alarm``, else of each class), and tried on others.
        prevalence: share of the alarming classes where the model is to be used, at which predictive values, alarms and
            net benefit are told; None takes that of the rows.
        benefit_thresholds: probabilities from which on one would act, for the net benefit.
        store: keep the operating points in the model's folder, so that predictions say which rows raise an alarm.
        by: ``group`` measures one answer for all rows of a group.
        pooling: how, with ``by``: ``mean``, or ``max``; None takes what the validation rows choose, where they are read
            (``validation``, ``operating_points``), else what the model was saved with, else the mean.
        missing_modality: also measure with every set of the modalities (image, text, columns), and with the text
            or the columns of another row.
        report: write ``report.html``, one page with everything, validation rows and missing modalities included.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: list[str]
    data: str
    split: str | None = None
    output: str | None = None
    batch_size: int = 64
    tta: bool | None = None
    calibrated: bool = True
    calibration: str | None = None
    subgroups: list[str] = field(default_factory=list)
    validation: bool = False
    coverage: float = 0.9
    sensitivity: float = 0.9
    alarm: list[str] = field(default_factory=list)
    operating_points: list[str] = field(default_factory=list)
    prevalence: float | None = None
    benefit_thresholds: list[float] = field(default_factory=lambda: [0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
    store: bool = False
    by: str | None = None
    pooling: str | None = None
    missing_modality: bool = False
    report: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        check_rules(self.operating_points, self.prevalence, self.alarm)
        check_by(self.by, self.pooling)
        if self.store and not self.operating_points:
            raise ValueError("store keeps operating points; name rules for them, --operating_points.")
