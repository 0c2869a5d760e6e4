"""``FusionRegressor``: scikit-learn regressor on image paths, texts and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from mmfusion.estimators.base import FusionEstimator


class FusionRegressor(RegressorMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Regressor on rows with images, texts and columns, with the scikit-learn estimator API.

    The parameters are those of :class:`~mmfusion.estimators.FusionClassifier`, except ``task``, which is
    ``regression``.

    Attributes:
        predictor_: The trained :class:`~mmfusion.Predictor`.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Their names, if ``X`` is a frame.
    """

    tasks = ("regression",)

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> FusionRegressor:
        """Train on rows.

        Args:
            X: The rows.
            y: (N,) or (N, targets) numbers, NaN if one of several is unknown; None uses ``label_column`` of ``X``.
            groups: (N,) patient of each row.

        Raises:
            ValueError: There are no numbers, or training rejects the data.
        """
        y = self._given(X, y)
        self._is_single = np.ndim(y) == 1
        cells = self._several(X, y)
        self._fit(X, cells, groups, label_columns=list(cells))
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predicted values: (N,) if ``y`` was, else (N, targets).

        Raises:
            ValueError: A row is unreadable.
        """
        values = self._thirds(X)[0]
        return values[:, 0] if self._is_single else values

    def predict_interval(self, X: Any) -> NDArray[np.float64]:
        """Ends of the 90 % prediction intervals (2, N) or (2, N, targets); NaN without validation rows."""
        _, low, high = self._thirds(X)
        ends = np.stack([low, high])
        return ends[..., 0] if self._is_single else ends

    def _thirds(self, X: Any) -> list[NDArray[np.float64]]:
        """Values, lower and upper ends, each (N, targets)."""
        return np.split(self._answers(X).astype(np.float64), 3, axis=1)
