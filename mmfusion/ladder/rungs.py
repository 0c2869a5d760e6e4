"""The networks of ``mmfusion auto`` that the data support, and the time of their training steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from accelerate.utils import send_to_device

from mmfusion.data import CaseTable, MultimodalDataset
from mmfusion.data.contents import contents_of
from mmfusion.experiments.plan import WITHOUT, unimodal
from mmfusion.hardware import resolve_precision
from mmfusion.models.factory import resolve_config
from mmfusion.settings import with_settings
from mmfusion.training.build import build_loss, label_counts, needs_aux_heads
from mmfusion.training.columns import ChosenColumns, choose_columns, with_column_names
from mmfusion.training.config import RunConfig
from mmfusion.training.run_folder import RunFolder
from mmfusion.training.settling import settle
from mmfusion.training.weights import RANDOM, tower_starts

#: Number of timed training steps, after one for warm-up.
_MEASURED = 2


@dataclass(frozen=True)
class Networks:
    """The networks that a data set supports.

    Attributes:
        columns: The suitable columns.
        frozen: Run with the frozen tower for logistic regression, or None.
        tuned: Name -> run of each network to fine-tune, in order.
        told: Log lines about the choices.
    """

    columns: ChosenColumns
    frozen: RunConfig | None
    tuned: dict[str, RunConfig]
    told: list[str]


def plan_networks(base: RunConfig, cases: CaseTable) -> Networks:
    """Determine the networks from the contents of the training rows.

    Args:
        base: The run from which all are derived.
        cases: The rows, all with a split.

    Raises:
        ValueError: The rows have no input of the model.
    """
    columns, told = _columns(base, cases)
    base = replace(base, dataset=with_column_names(base.dataset, columns.table))
    if columns.table is None:
        base = with_settings(base, WITHOUT["columns"])
    parts, rows = resolve_config(base.model.name, **base.model.overrides()), cases.select("train")
    template, missing = base.dataset.text_template, base.dataset.missing_values
    found = contents_of(rows, template=template, missing_values=missing)
    there = {
        "image": bool(found.image) and parts["image_encoder"] is not None,
        "text": bool(found.text) and parts["text_encoder"] is not None,
        "columns": columns.table is not None,
    }
    modalities = [name for name, is_there in there.items() if is_there]
    if not modalities:
        raise ValueError(f"{cases.source}: the rows have no input of {base.model.name}; check dataset and model.")
    told.append(f"the networks use {' and '.join(modalities)}")
    if there["image"] and base.train.freeze_stages is not None and _is_random(base, "image"):
        base = with_settings(base, {"train.freeze_stages": None})
        told.append("the image tower starts from random weights: train.freeze_stages is ignored")
    alone = {name: unimodal(base, name) for name in modalities}
    if len(modalities) == 1:
        tuned = alone
    else:
        absent = [settings for name, settings in WITHOUT.items() if not there[name]]
        fusion = with_settings(base, {name: value for settings in absent for name, value in settings.items()})
        tuned = {name: alone[name] for name in modalities[:1] if name == "image"} | {"fusion": fusion}
    encoded = next((name for name in ("image", "text") if there[name] and not _is_random(alone[name], name)), None)
    head = {"model.head": "linear", "model.head_args": None, "processor.augment": "none", "train.freeze_stages": None}
    frozen = None if encoded is None else with_settings(alone[encoded], {**head, "train.freeze_encoders": True})
    return Networks(columns, frozen, tuned, told)


def _columns(base: RunConfig, cases: CaseTable) -> tuple[ChosenColumns, list[str]]:
    if not base.dataset.reads_columns:
        return ChosenColumns(), []
    try:
        columns = choose_columns(cases, base.dataset, base.privacy.min_patients)
    except ValueError as error:
        if base.dataset.named_columns:
            raise
        return ChosenColumns(), [str(error)]
    return columns, [columns.summary()]


def _is_random(config: RunConfig, modality: str) -> bool:
    """Whether a tower has random initial weights."""
    return any(start.modality == modality and start.words.startswith(RANDOM) for start in tower_starts(config))


def seconds_of_step(
    config: RunConfig, cases: CaseTable, *, enough: float = math.inf, now: Callable[[], float] = time.perf_counter
) -> float:
    """Measure the seconds of one training step including its batch (mean of the second and third).

    Args:
        config: The run.
        cases: Its rows.
        enough: Seconds after which timing stops; with only one step by then, it is the result.
        now: Clock function.
    """
    loss = build_loss(config.train, cases.question, label_counts(cases))
    predictor = settle(config, cases).predictor(cases, aux_heads=needs_aux_heads(loss))
    augment = None if config.processor.augment == "none" else config.processor.augment
    rows = MultimodalDataset(cases.select("train"), predictor.processor, augment=augment, seed=config.seed)
    model = predictor.network().to(torch.accelerator.current_accelerator(check_available=True) or "cpu").train()
    optimizer = torch.optim.AdamW(model.param_groups(config.train.lr))
    is_bf16 = resolve_precision(config.train.precision) == "bf16"
    first = began = now()
    places = itertools.cycle(range(len(rows)))
    for number in range(1 + _MEASURED):
        began = began if number > 1 else now()
        batch = rows.collate([rows[i] for i in itertools.islice(places, config.train.batch_size)])
        inputs = send_to_device(batch, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bf16):
            output = model(**{name: value for name, value in inputs.items() if name != "labels"})
        value: Any = loss(output, inputs["labels"])["loss"]
        value.backward()
        optimizer.step()
        if now() - first > enough:
            break
    return (now() - began) / max(number, 1)


def begun_epochs(folder: RunFolder) -> int | None:
    """Number of epochs of the run in a folder when it started, or None."""
    if not folder.config.exists():
        return None
    return int(yaml.safe_load(folder.config.read_text(encoding="utf-8"))["train"]["epochs"])
