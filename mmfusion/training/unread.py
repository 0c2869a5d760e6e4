"""Checks after each epoch, on a few validation rows, whether the model uses all its modalities."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset

from mmfusion.evaluation.sensitivity import modality_sensitivity

#: Number of rows used: enough for a stable estimate in a fraction of an epoch's time.
ROWS = 128
#: Number of rows encoded at once, independent of the run's batch size, since rows are exchanged within a batch.
BATCH = 32

#: Mean change of the probabilities below which a modality counts as unused. On HAM10000, blocks that ignored the text
#: were at 0.0000 to 0.003, those that used it at 0.01 to 0.19.
UNREAD = 0.005

#: Key of a modality's value in the record of an epoch.
PREFIX = "moved_by_"


def moved_by(model: Any, rows: Dataset[Any] | None, *, workers: int = 0) -> dict[str, float]:
    """``moved_by_<modality>``: mean change of the probabilities when that modality comes from another row.

    The same rows are used every time, and torch's random state is unchanged.

    Args:
        model: A ``FusionModel``.
        rows: Validation rows with ``collate``; None returns an empty dict.
        workers: Loader processes.
    """
    if rows is None or len(getattr(model, "towers", ())) < 2:
        return {}
    found = modality_sensitivity(model, _batches(rows, workers, next(model.parameters()).device))
    return {f"{PREFIX}{modality}": value for modality, value in found.items()}


def _batches(rows: Any, workers: int, device: torch.device) -> Iterator[dict[str, Any]]:
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:ROWS].tolist()
    batches = [drawn[i : i + BATCH] for i in range(0, len(drawn), BATCH)]
    # without its own generator a loader draws its seed from torch's
    own: dict[str, Any] = {"num_workers": workers, "generator": torch.Generator()}
    for batch in DataLoader(rows, batch_sampler=batches, collate_fn=rows.collate, **own):
        yield send_to_device({name: value for name, value in batch.items() if name != "labels"}, device)


def modalities_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Modality -> result of :func:`moved_by` in the record of an epoch."""
    return {name.removeprefix(PREFIX): value for name, value in record.items() if name.startswith(PREFIX)}


def warnings_of(record: Mapping[str, Any]) -> list[str]:
    """A line for each modality that the model ignores, according to the record of an epoch.

    If no modality changes the probabilities, the model is untrained and there is no warning.
    """
    found = modalities_of(record)
    most = max(found, key=lambda modality: found[modality], default="")
    return [
        f"The model ignores the {modality}: exchanging it between validation rows changes the probabilities by "
        f"{value:.4f} (the {most} by {found[most]:.4f}). Try model.modality_dropout, or a model mibf_v2_* instead of "
        "mibf_*; see docs/parts/mibf.md."
        for modality, value in found.items()
        if value < min(UNREAD, found[most] / 10)
    ]
