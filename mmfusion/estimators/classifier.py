"""``FusionClassifier``: a scikit-learn estimator over image paths, texts and columns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from mmfusion.artifacts.folder import is_saved
from mmfusion.data import read_cases
from mmfusion.data.memory import is_frame
from mmfusion.estimators.quiet import undisturbed
from mmfusion.estimators.rows import Inputs, in_order, inputs_of, is_plain_array, label_names, pandas_of, table_of
from mmfusion.inference.rows import AllRows
from mmfusion.models.factory import resolve_config
from mmfusion.settings import with_settings
from mmfusion.training.config import ModelConfig, RunConfig, TrainConfig
from mmfusion.training.run import train


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
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

    Attributes:
        classes_: (C,) the classes, sorted.
        predictor_: The trained :class:`~mmfusion.Predictor`.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Their names, where ``X`` was a frame.
    """

    def __init__(
        self,
        model: str = "mibf_v2_lite0",
        *,
        image_column: str = "image",
        text_column: str | None = None,
        text_template: str | None = None,
        columns: str | Sequence[str] | None = "auto",
        image_root: str | None = None,
        label_column: str = "label",
        fusion: str | None = None,
        head: str | None = None,
        encoder_weights: str | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        lr: float = 1e-3,
        validation_fraction: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        output: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.image_column = image_column
        self.text_column = text_column
        self.text_template = text_template
        self.columns = columns
        self.image_root = image_root
        self.label_column = label_column
        self.fusion = fusion
        self.head = head
        self.encoder_weights = encoder_weights
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.seed = seed
        self.output = output
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> FusionClassifier:
        """Train on rows.

        Args:
            X: The rows.
            y: (N,) their classes; None takes ``label_column`` of ``X``.
            groups: (N,) patient of each row, for the validation rows and for what may enter a vocabulary.

        Raises:
            ValueError: No classes, one class only, or what training refuses.
        """
        X, y = self._with_classes(X, y)
        X = self._checked(X, reset=True)
        self._inputs = self._inputs_of(X)
        check_consistent_length(X, y, groups)
        self.classes_, positions = np.unique(y, return_inverse=True)
        self._names = label_names(self.classes_)
        more: dict[str, Any] = {"label": np.array(self._names, dtype=object)[positions]}
        if groups is not None:
            more["group"] = np.asarray(groups)
        table = table_of(X, self._columns(), self._inputs, more)
        with tempfile.TemporaryDirectory() as folder, undisturbed(verbose=self.verbose):
            output = Path(folder, "run") if self.output is None else self.output
            self.predictor_ = train(self._config(table, str(output))).predictor
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class: (N, C), in the order of ``classes_``.

        Raises:
            ValueError: A row cannot be read.
        """
        check_is_fitted(self)
        X = self._checked(self._without_label(X), reset=False)
        predictor, table = self.predictor_, table_of(X, self._columns(), self._inputs, {})
        cases = read_cases(table, self._dataset(), processor_labels=self._names, require_labels=False)
        with undisturbed(verbose=self.verbose):
            rows = AllRows(cases, predictor.processor)
            parts = list(predictor.stream([rows], batch_size=self.batch_size))
        for id_, error in zip(rows.ids, (error for part in parts for error in part.errors), strict=True):
            if error is not None:
                raise ValueError(f"Row {id_} cannot be predicted: {error}")
        return in_order(np.concatenate([part.probabilities for part in parts]), predictor.labels, self._names)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row: (N,)."""
        probabilities = self.predict_proba(X)
        found: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return found

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the trained model's folder, as ``mmfusion train`` does."""
        check_is_fitted(self)
        return self.predictor_.save_pretrained(folder)

    def set_params(self, **params: Any) -> FusionClassifier:
        """Set parameters, as scikit-learn's ``set_params``; other settings of a run belong into ``settings``."""
        known = self.get_params()
        if unknown := [name for name in params if name not in known]:
            raise ValueError(
                f"FusionClassifier has no parameter {unknown[0]!r}; it has {', '.join(known)}. Other settings of a run "
                "are values of settings, such as {'processor.image_size': 64}."
            )
        super().set_params(**params)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags

    def _with_classes(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """X without its label column, and the classes."""
        if y is None and is_frame(X) and self.label_column in pandas_of(X).columns:
            y = pandas_of(X)[self.label_column]
        if y is None:
            lacking = f"and X has no column {self.label_column!r}"
            raise ValueError(f"FusionClassifier requires y to be passed, but the target y is None, {lacking}.")
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        if any(value is None or value != value for value in y.tolist()):
            raise ValueError("y contains NaN: every row needs a class to train on.")
        return self._without_label(X), y

    def _without_label(self, X: Any) -> Any:
        return pandas_of(X).drop(columns=[self.label_column], errors="ignore") if is_frame(X) else X

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """X as it is read, numbers (N, F) or a frame; ValueError of other columns than in ``fit``."""
        if is_plain_array(X, self.image_column, [self.text_column or "text"]) if reset else self._inputs.is_array:
            return validate_data(self, X, reset=reset, ensure_all_finite="allow-nan", dtype="numeric")
        if not is_frame(X):
            raise ValueError("FusionClassifier was fitted on a frame; predict takes one with the same columns.")
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    def _columns(self) -> list[str]:
        names = getattr(self, "feature_names_in_", None)
        return [f"x{number}" for number in range(self.n_features_in_)] if names is None else [*map(str, names)]

    def _inputs_of(self, X: Any) -> Inputs:
        if not is_frame(X):
            frame = pd.DataFrame(X, columns=self._columns())
            return replace(inputs_of(frame, None, None, self.columns), is_array=True)
        return inputs_of(X, self.image_column, self.text_column or "text", self.columns)

    def _dataset(self, **options: Any) -> Any:
        return self._inputs.dataset(image_root=self.image_root, text_template=self.text_template, **options)

    def _config(self, table: Any, output: str) -> RunConfig:
        """The training run."""
        grouped = {"group_column": "group"} if "group" in table.columns else {}
        share = self.validation_fraction
        batch = max(1, min(self.batch_size, int(len(table) * (1 - share))))
        config = RunConfig(
            data=table,
            output=output,
            seed=self.seed,
            dataset=self._dataset(val_fraction=share, test_fraction=0.0, **grouped),
            model=self._model(),
            train=TrainConfig(epochs=self.epochs, batch_size=batch, lr=self.lr),
        )
        return with_settings(config, self.settings or {})

    def _model(self) -> ModelConfig:
        """The model, without the encoders for which X has nothing."""
        model = ModelConfig(name=self.model, encoder_weights=self.encoder_weights, fusion=self.fusion, head=self.head)
        if is_saved(self.model):
            return model
        reads = resolve_config(self.model)
        wants_image, wants_text = reads["image_encoder"] is not None, reads["text_encoder"] is not None
        has_text = self._inputs.text is not None or self.text_template is not None
        if self._inputs.image is None and not has_text:
            alone = ModelConfig(name="table_mlp", fusion=self.fusion, head=self.head)
            return alone if wants_image or wants_text else model
        model.image_encoder = "none" if wants_image and self._inputs.image is None else None
        model.text_encoder = "none" if wants_text and not has_text else None
        return model
