"""Pooled metrics of all folds on the card of one fold's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from mmfusion.data import read_cases
from mmfusion.experiments.pooling import pooled
from mmfusion.results import Evaluation

LABELS = ["a", "b", "c"]


def test_folds_are_pooled_and_the_card_says_so(toy: Path, tmp_path: Path) -> None:
    cases = read_cases(toy)
    rng, seed = np.random.default_rng(0), tmp_path / "base" / "seed-2"
    truth = cases.frame["label"].to_numpy()
    p = rng.dirichlet(np.ones(3), len(truth)) + 0.3 * (truth[:, None] == np.array(LABELS))
    p /= p.sum(axis=1, keepdims=True)
    for fold in range(3):
        rows = np.arange(fold, len(truth), 3)
        (seed / f"fold-{fold}").mkdir(parents=True)
        table = pd.DataFrame({"id": cases.frame["id"].to_numpy()[rows], "true_label": truth[rows], "error": ""})
        table["group"] = [f"patient {row // 2}" if row else "" for row in rows]
        table[[f"p_{name}" for name in LABELS]] = p[rows]
        table.to_csv(seed / f"fold-{fold}" / "predictions.csv", index=False)
    own = Evaluation(n=12, figures={"accuracy": 0.75, "macro_auroc": None})
    found = pooled(seed / "fold-1" / "best", own)
    assert found.n == len(truth) and found.figures["accuracy"] == accuracy_score(truth, np.array(LABELS)[p.argmax(1)])
    assert found.figures["macro_auroc"] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"))
    assert found.bootstrap.groups == 20  # patients 0 to 18, and the first row, which is in no group
    assert found.intervals["accuracy"].low < found.figures["accuracy"] < found.intervals["accuracy"].high
    told = "metrics are pooled over 3 models, each trained without one fold and tested on it."
    again = Evaluation.from_dict(found.to_dict())
    assert again.pooled == found.pooled and told in again.markdown()
    assert "seed 2, tested on fold 1, where, on 12 rows, they have accuracy 0.750." in again.markdown()
    (seed / "fold-0" / "predictions.csv").unlink()
    with pytest.raises(ValueError, match="fold-0 is not finished"):
        pooled(seed / "fold-1", own)
    with pytest.raises(ValueError, match="is not a seed-S/fold-F"):
        pooled(tmp_path, own)
