"""``FusionClassifier``: a scikit-learn estimator over image paths, texts and columns."""

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
    """A classifier of rows with images, texts and columns, to use as any estimator of scikit-learn.

    ``X`` is a pandas DataFrame (or pyarrow Table) with a column of image paths, a column of texts, and further columns,
    any of which may be absent; or an array of numbers (NaN: a missing cell), which is a table of columns. ``fit`` is a
    training run as ``mmfusion train`` does it, with the same result for the same rows and seed.

    Args:
        model: Architecture, or a trained model to start from. Where ``X`` has columns alone, an architecture that reads
            more gives way to ``table_mlp``.
        image_column: Column with the image paths.
        text_column: Column with the texts; None takes ``text`` where there is such a column.
        text_template: Sentence made from columns, as ``dataset.text_template``.
        columns: Further columns to read: their names, ``auto`` or None. Named ones are read as they are; numbers by
            their type, all others as categories. With ``auto`` all are read, but beside images and texts those that
            training leaves out: they identify a row, tell the label, or say nothing.
        image_root: Folder of the images; None takes paths that are absolute or relative to the working directory.
        label_column: Column of ``X`` with the classes where ``fit`` is given no ``y``; it is never an input.
        fusion: As ``model.fusion``; None takes the architecture's, as with ``head``.
        head: As ``model.head``.
        encoder_weights: As ``model.encoder_weights``: None, ``default`` or ``none``.
        epochs: Passes over the rows.
        batch_size: Rows per step; at most as many as there are.
        lr: Peak learning rate.
        validation_fraction: Share of the rows (by ``groups``) that is held out to choose the best epoch and to fit the
            temperature; with 0 all rows train, and the last epoch is taken.
        settings: Any further settings of a run, dotted: ``{"processor.image_size": 64, "train.loss": "focal"}``.
        seed: Fixes weights, order, augmentation and dropout.
        output: Run folder; None keeps nothing on disk.
        verbose: Show what training prints and warns of.
        task: ``multiclass``, which None takes; ``multilabel``, where y is (N, L) of 1, 0 and NaN for unknown; or
            ``ordinal``, where the classes are grades in their order.

    Attributes:
        classes_: (C,) the classes, sorted; of several labels their names.
        predictor_: The trained :class:`~mmfusion.Predictor`.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Their names, where ``X`` was a frame.
    """

    tasks = ("multiclass", "multilabel", "ordinal")

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> FusionClassifier:
        """Train on rows.

        Args:
            X: The rows.
            y: (N,) their classes, or (N, L) labels; None takes ``label_column`` of ``X``.
            groups: (N,) patient of each row, for the validation rows and for what may enter a vocabulary.

        Raises:
            ValueError: No classes, one class only, or what training refuses.
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
            raise ValueError("y contains NaN: every row needs a class to train on.")
        self.classes_, positions = np.unique(y, return_inverse=True)
        self._names = label_names(self.classes_)
        grades = {"grades": self._names} if task.in_order else {}
        self._fit(X, {"label": np.array(self._names, dtype=object)[positions]}, groups, **grades)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class or label: (N, C), in the order of ``classes_``.

        Raises:
            ValueError: A row cannot be read.
        """
        answers = self._answers(X)
        if not self.predictor_.task.one_class:
            return answers.astype(np.float64)
        return in_order(answers, self.predictor_.labels, self._names)

    def predict(self, X: Any) -> NDArray[Any]:
        """The class that is named for each row (N,): the most probable one, the median grade; or 1 and 0 (N, L)."""
        probabilities = self.predict_proba(X)
        task = self.predictor_.task
        found: NDArray[Any] = task.named(probabilities)
        return self.classes_[found] if task.one_class else found.astype(np.int64)
