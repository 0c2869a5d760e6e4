"""Whether the model of a run reads all its modalities, measured on a few validation rows after each epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset

from mmfusion.evaluation.sensitivity import modality_sensitivity

#: rows that are looked at: enough to tell nothing from little, and a small part of an epoch's time.
ROWS = 128
#: rows that are encoded at once, whatever the run's batch size: the figure depends on which rows are exchanged.
BATCH = 32

#: mean change of the probabilities below which a modality counts as not read. Blocks that had shut the text out were at
#: 0.0000 to 0.003 on HAM10000, those that read it at 0.01 to 0.19.
UNREAD = 0.005

#: what the figure of a modality is called in the record of an epoch.
PREFIX = "moved_by_"


def moved_by(model: Any, rows: Dataset[Any] | None, *, workers: int = 0) -> dict[str, float]:
    """``moved_by_<modality>``: mean change of the probabilities when that modality comes from another row.

    The same rows are drawn every time, and torch's random state is left alone.

    Args:
        model: A ``FusionModel``.
        rows: Validation rows with ``collate``; None gives nothing.
        workers: Loader processes.
    """
    if rows is None or len(getattr(model, "towers", ())) < 2:
        return {}
    found = modality_sensitivity(model, _batches(rows, workers, next(model.parameters()).device))
    return {f"{PREFIX}{modality}": value for modality, value in found.items()}


def _batches(rows: Any, workers: int, device: torch.device) -> Iterator[dict[str, Any]]:
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:ROWS].tolist()
    batches = [drawn[i : i + BATCH] for i in range(0, len(drawn), BATCH)]
    # without a generator of its own a loader draws its seed from torch's
    own: dict[str, Any] = {"num_workers": workers, "generator": torch.Generator()}
    for batch in DataLoader(rows, batch_sampler=batches, collate_fn=rows.collate, **own):
        yield send_to_device({name: value for name, value in batch.items() if name != "labels"}, device)


def modalities_of(record: Mapping[str, Any]) -> dict[str, float]:
    """modality -> the figure that :func:`moved_by` put into the record of an epoch."""
    return {name.removeprefix(PREFIX): value for name, value in record.items() if name.startswith(PREFIX)}


def warnings_of(record: Mapping[str, Any]) -> list[str]:
    """A line for each modality that the model of an epoch's record does not read.

    A model that no modality moves has not learned yet, and gets none.
    """
    found = modalities_of(record)
    most = max(found, key=lambda modality: found[modality], default="")
    return [
        f"The model does not read the {modality}: exchanged between validation rows, it moves the probabilities by "
        f"{value:.4f} (the {most} by {found[most]:.4f}). model.modality_dropout, or a model mibf_v2_* in place of "
        "mibf_*, makes it read both; see docs/parts/mibf.md."
        for modality, value in found.items()
        if value < min(UNREAD, found[most] / 10)
    ]
