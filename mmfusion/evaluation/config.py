"""Options of an evaluation. Imports no heavy library."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting
from mmfusion.decisions import check_by, check_rules


@dataclass
class EvaluateConfig:
    """Options of an evaluation.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict their mean.
        data: Root folder of the data set.
        split: Rows to evaluate on: ``train``, ``val``, ``test`` or ``all``; None uses ``test``, or ``all`` for data
            without a split that are not the model's training data.
        output: Folder for the results; None uses ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: Rows per step.
        tta: Average over test-time augmentations; null uses the model's setting.
        calibrated: Apply the fitted temperature and, if the model has one, the restored part of the prior.
        calibration: Update for another site from ``mmfusion validate``: its file, or the name of one stored with the
            model.
        subgroups: Columns that define subgroups, by the table's names or those of ``dataset.columns``; numbers are
            split into thirds, ``age:10`` into bands of ten.
        validation: Fit conformal sets and decision thresholds on the ``val`` rows, and evaluate them on the others.
        coverage: Target coverage of conformal sets.
        sensitivity: Target sensitivity of each class's decision threshold.
        alarm: Classes to act on together (``mel bcc akiec``), for the net benefit; their probabilities are summed.
        operating_points: Rules, ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``, for each of
            which a threshold is chosen on the ``val`` rows (for ``alarm``, else for each class) and evaluated on the
            others.
        prevalence: Prevalence of the alarm classes at the place of use, for predictive values, alarms and net benefit;
            None uses that of the rows.
        benefit_thresholds: Threshold probabilities for the net benefit.
        store: Save the operating points in the model's folder, so that predictions have an alarm column.
        by: ``group`` evaluates one prediction for all rows of a group.
        pooling: Pooling with ``by``: ``mean`` or ``max``; None uses the choice of the validation rows, if they are read
            (``validation``, ``operating_points``), else the model's setting, else the mean.
        missing_modality: Also evaluate every subset of the modalities (image, text, columns), and the text or the
            columns of another row.
        report: Write ``report.html``, one page with everything, including validation rows and missing modalities.
        dataset: How to read the data; the defaults are the model's training settings.
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
            raise ValueError("store needs operating points; give rules with --operating_points.")
