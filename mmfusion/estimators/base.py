"""Base of the estimators: converts X to the table of a training run and holds its predictor."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from mmfusion.artifacts.folder import is_saved
from mmfusion.data import read_cases
from mmfusion.data.memory import is_frame
from mmfusion.estimators.quiet import undisturbed
from mmfusion.estimators.rows import Inputs, inputs_of, is_plain_array, pandas_of, table_of
from mmfusion.inference.rows import AllRows
from mmfusion.models.factory import resolve_config
from mmfusion.names import check_choice
from mmfusion.settings import with_settings
from mmfusion.training.config import ModelConfig, RunConfig, TrainConfig
from mmfusion.training.run import train


class FusionEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base class of the estimators, with the parameters of :class:`~mmfusion.estimators.FusionClassifier`."""

    #: Supported tasks, the default first.
    tasks: ClassVar[tuple[str, ...]]

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
        task: str | None = None,
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
        self.task = task

    @property
    def _task(self) -> str:
        check_choice("task", self.task, (None, *self.tasks))
        return self.task or self.tasks[0]

    def _fit(self, X: Any, cells: Mapping[str, Any], groups: Any, **labelled: Any) -> None:
        """Train on X and label cells (column -> N cells), which the dataset options ``labelled`` refer to."""
        X = self._checked(self._without_label(X), reset=True)
        self._inputs, self._labelled = self._inputs_of(X), labelled
        check_consistent_length(X, *cells.values(), groups)
        more = dict(cells) if groups is None else {**cells, "group": np.asarray(groups)}
        table = table_of(X, self._columns(), self._inputs, more)
        with tempfile.TemporaryDirectory() as folder, undisturbed(verbose=self.verbose):
            output = Path(folder, "run") if self.output is None else self.output
            self.predictor_ = train(self._config(table, str(output))).predictor

    def _answers(self, X: Any) -> NDArray[np.float32]:
        """(N, A) answers of the task; ValueError for an unreadable row."""
        check_is_fitted(self)
        X = self._checked(self._without_label(X), reset=False)
        predictor, table = self.predictor_, table_of(X, self._columns(), self._inputs, {})
        known: dict[str, Any] = {"processor_labels": predictor.labels, "require_labels": False}
        cases = read_cases(table, replace(self._dataset(), label_columns=[]), **known)
        with undisturbed(verbose=self.verbose):
            rows = AllRows(cases, predictor.processor)
            parts = list(predictor.stream([rows], batch_size=self.batch_size))
        for id_, error in zip(rows.ids, (error for part in parts for error in part.errors), strict=True):
            if error is not None:
                raise ValueError(f"Row {id_} cannot be predicted: {error}")
        return np.concatenate([part.probabilities for part in parts])

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the trained model's folder, as ``mmfusion train`` does."""
        check_is_fitted(self)
        return self.predictor_.save_pretrained(folder)

    def set_params(self, **params: Any) -> Self:
        """Set parameters like scikit-learn's ``set_params``; other settings of a run belong in ``settings``."""
        known = self.get_params()
        if unknown := [name for name in params if name not in known]:
            raise ValueError(
                f"{type(self).__name__} has no parameter {unknown[0]!r}; it has {', '.join(known)}. Other settings "
                "of a run belong in settings, such as {'processor.image_size': 64}."
            )
        super().set_params(**params)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags

    def _given(self, X: Any, y: Any) -> Any:
        """y, or the label column of X if y is None; ValueError if there is neither."""
        if y is None and is_frame(X) and self.label_column in pandas_of(X).columns:
            return pandas_of(X)[self.label_column]
        if y is None:
            name = type(self).__name__
            lacking = f"and X has no column {self.label_column!r}"
            raise ValueError(f"{name} requires y to be passed, but the target y is None, {lacking}.")
        return y

    def _several(self, X: Any, y: Any) -> dict[str, NDArray[Any]]:
        """Column -> N cells of y (N,) or (N, L); names that occur in X or are invalid are replaced by numbers."""
        frame = pd.DataFrame(pandas_of(y) if is_frame(y) else np.asarray(y, dtype=object))
        names = [str(name) for name in frame.columns] if is_frame(y) else [str(getattr(y, "name", None) or "y")]
        taken = {*map(str, pandas_of(X).columns)} if is_frame(X) else set()
        apt = len(names) == frame.shape[1] and not any(name in taken or "|" in name or "?" in name for name in names)
        names = names if apt else [f"y{number}" for number in range(frame.shape[1])]
        return {name: frame.iloc[:, place].to_numpy(dtype=object) for place, name in enumerate(names)}

    def _without_label(self, X: Any) -> Any:
        return pandas_of(X).drop(columns=[self.label_column], errors="ignore") if is_frame(X) else X

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """X as numbers (N, F) or a frame; ValueError for columns other than in ``fit``."""
        if is_plain_array(X, self.image_column, [self.text_column or "text"]) if reset else self._inputs.is_array:
            return validate_data(self, X, reset=reset, ensure_all_finite="allow-nan", dtype="numeric")
        if not is_frame(X):
            raise ValueError(f"{type(self).__name__} was fitted on a frame; predict needs one with the same columns.")
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
        asked = {"task": self._task, **self._labelled}
        return self._inputs.dataset(image_root=self.image_root, text_template=self.text_template, **asked, **options)

    def _config(self, table: Any, output: str) -> RunConfig:
        """The configuration of the training run."""
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
        """The model without encoders for modalities that X lacks."""
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
