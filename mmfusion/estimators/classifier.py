"""``FusionClassifier``: scikit-learn classifier on image paths, texts and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from mmfusion.estimators.base import FusionEstimator
from mmfusion.estimators.rows import in_order, label_names
from mmfusion.task import task_named


class FusionClassifier(ClassifierMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classifier of rows with images, texts and columns, with the scikit-learn estimator API.

    ``X`` is a pandas DataFrame (or pyarrow Table) with columns of image paths, texts, and other features, all optional;
    or a numeric array (NaN: a missing cell), which is a table of columns. ``fit`` is a training run like
    ``mmfusion train``, with the same result for the same rows and seed.

    Args:
        model: Architecture, or a trained model to start from. If ``X`` only has columns, an architecture with other
            inputs is replaced by ``table_mlp``.
        image_column: Column with the image paths.
        text_column: Column with the texts; None uses ``text`` if there is such a column.
        text_template: Sentence built from columns, as ``dataset.text_template``.
        columns: Other input columns: their names, ``auto`` or None. Named ones are used unchanged, numeric by type and
            all others categorical. ``auto`` uses all; with images or texts, except those that training excludes because
            they identify a row, reveal the label, or are constant.
        image_root: Folder of the images; None accepts paths that are absolute or relative to the working directory.
        label_column: Column of ``X`` with the classes if ``fit`` gets no ``y``; it is never an input.
        fusion: As ``model.fusion``; None uses the architecture's, like ``head``.
        head: As ``model.head``.
        encoder_weights: As ``model.encoder_weights``: None, ``default`` or ``none``.
        epochs: Passes over the rows.
        batch_size: Rows per step; limited to the number of rows.
        lr: Peak learning rate.
        validation_fraction: Share of the rows (by ``groups``) held out to select the best epoch and to fit the
            temperature; with 0 all rows are used for training and the last epoch is kept.
        settings: Other settings of a run, dotted: ``{"processor.image_size": 64, "train.loss": "focal"}``.
        seed: Seed of weights, order, augmentation and dropout.
        output: Run folder; None writes nothing.
        verbose: Show output and warnings of training.
        task: ``multiclass`` (None); ``multilabel`` for y (N, L) of 1, 0 and NaN for unknown; or ``ordinal`` for ordered
            grades.

    Attributes:
        classes_: (C,) sorted classes, or label names for ``multilabel``.
        predictor_: The trained :class:`~mmfusion.Predictor`.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Their names, if ``X`` is a frame.
    """

    tasks = ("multiclass", "multilabel", "ordinal")

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> FusionClassifier:
        """Train on rows.

        Args:
            X: The rows.
            y: (N,) classes, or (N, L) labels; None uses ``label_column`` of ``X``.
            groups: (N,) patient of each row, for the validation split and the minimum size of vocabularies.

        Raises:
            ValueError: There are no classes or only one, or training rejects the data.
        """
        y, task = self._given(X, y), task_named(self._task)
        if not task.one_class:
            cells = self._several(X, y)
            self.classes_ = np.array(list(cells))
            self._fit(X, cells, groups, label_columns=list(cells))
            return self
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        if any(value is None or value != value for value in y.tolist()):
            raise ValueError("y contains NaN: every row needs a class.")
        self.classes_, positions = np.unique(y, return_inverse=True)
        self._names = label_names(self.classes_)
        grades = {"grades": self._names} if task.in_order else {}
        self._fit(X, {"label": np.array(self._names, dtype=object)[positions]}, groups, **grades)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class or label: (N, C), in the order of ``classes_``.

        Raises:
            ValueError: A row is unreadable.
        """
        answers = self._answers(X)
        if not self.predictor_.task.one_class:
            return answers.astype(np.float64)
        return in_order(answers, self.predictor_.labels, self._names)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted class (N,): the most probable one, or the median grade; for labels 1 and 0 (N, L)."""
        probabilities = self.predict_proba(X)
        task = self.predictor_.task
        found: NDArray[Any] = task.named(probabilities)
        return self.classes_[found] if task.one_class else found.astype(np.int64)
