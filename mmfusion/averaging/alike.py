"""Checks that models can be averaged."""

from collections.abc import Sequence
from typing import Any

from mmfusion.inference.predictor import Predictor
from mmfusion.settings import flat


def check_alike(predictors: Sequence[Predictor]) -> None:
    """Check that models agree in architecture, labels and preprocessing."""
    first = predictors[0]
    for other in predictors[1:]:
        for kind, facts in (("preprocessing", _preprocessing), ("architecture", _architecture)):
            a, b = facts(first), facts(other)
            differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
            if differing:
                key = differing[0]
                values = "" if key == "tokenizer" else f" ({a.get(key)!r} and {b.get(key)!r})"
                more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
                raise ValueError(
                    f"The models of a soup may differ only in their weights; {first.name} and {other.name} "
                    f"differ in their {kind}: {key}{values}{more}. Use an ensemble instead."
                )


def check_same_rows(predictors: Sequence[Predictor]) -> None:
    """Check that models used the same rows and splits: validation rows of one could be training rows of another."""
    first = predictors[0]
    for other in predictors[1:]:
        if other.provenance.get("data_fingerprint") != first.provenance.get("data_fingerprint"):
            raise ValueError(
                f"{first.name} and {other.name} were trained on different rows or splits: validation rows of one are "
                "training rows of the other. Remove data for a uniform soup."
            )


def shared(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Entries that all dicts share."""
    first, *others = entries
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _architecture(predictor: Predictor) -> dict[str, Any]:
    """The model's keywords except dropout rates, which only affect training."""
    keywords = flat(predictor.network().config)
    return {name: value for name, value in keywords.items() if "drop" not in name.split(".")[-1]}


def _preprocessing(predictor: Predictor) -> dict[str, Any]:
    processor = predictor.processor
    tokenizer: Any = processor.tokenizer
    return processor.to_dict() | {"tokenizer": None if tokenizer is None else tokenizer.backend_tokenizer.to_str()}
