"""Loads a trained model from its folder."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from mmfusion.artifacts.folder import full_name, read_config, read_metrics, resolve_artifact
from mmfusion.data import Processor
from mmfusion.decisions import Decisions
from mmfusion.hardware import check_compiler
from mmfusion.inference.familiarity import Familiarity
from mmfusion.inference.onnx_model import OnnxModel
from mmfusion.inference.updates import UNFITTED, read_update
from mmfusion.models import FusionModel, load_model
from mmfusion.models.fitting import check_answers, check_fit
from mmfusion.names import check_choice
from mmfusion.task import task_of

#: Computes the logits of a batch.
ENGINES = ("torch", "onnx")


def saved_parts(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None,
    calibrated: bool,
    calibration: str | os.PathLike[str] | None = None,
    engine: str | None = None,
    compile: bool = False,
    **computing: Any,
) -> dict[str, Any]:
    """The fields of a :class:`~mmfusion.Predictor` from the folder of a saved or exported model.

    Args:
        name: Name of the model.
        device: Device.
        calibrated: Whether to apply the calibration; if False, settings chosen on calibrated probabilities are dropped
            too.
        calibration: Update for another site, a file or a name; operating points and the conformal rule, which were
            chosen without it, are then dropped.
        engine: Engine, see ``Predictor.from_pretrained``.
        compile: Compile the model with torch.compile at its first batches.
        computing: ``dtype`` and ``channels_last``.
    """
    folder = resolve_artifact(name)
    config, processor = read_config(folder), Processor.from_pretrained(folder)
    model: FusionModel | OnnxModel
    check_choice("engine", engine, (None, *ENGINES))
    if engine == "torch" and "export" in config:
        raise ValueError(f"{folder} is an exported model, without the weights needed by engine='torch'.")
    if engine == "onnx" or "export" in config:
        if (dtype := computing["dtype"]) is not None:
            raise ValueError(f"dtype={dtype} does not apply to an exported model, which computes in float32.")
        if compile:
            raise ValueError("compile does not apply to ONNX Runtime; remove it, or use engine='torch'.")
        from mmfusion.exporting.cached import program_of

        model = OnnxModel(folder if "export" in config else program_of(folder), device)
        computing["channels_last"] = False  # the format of an exported model is fixed
    else:
        model = load_model(folder).to(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
        if compile:
            check_compiler()
            model.compile()
    check_answers(model, processor, folder)
    task = task_of(model)
    try:
        check_fit(model, processor)
    except ValueError as error:
        raise ValueError(f"{folder}: {error} Save them again, together.") from None
    fitted = config.get("calibration") if calibrated else None
    decisions = Decisions.from_dict(config.get("decisions") if calibrated else None, processor.labels)
    if decisions != Decisions():
        task.need_one_class(f"{folder}: entry 'decisions'")
    if calibration is not None:
        if not calibrated:
            raise ValueError("An update needs calibrated probabilities; remove calibrated=False.")
        task.need_one_class("calibration for another site")
        update, local = read_update(calibration, folder, config)
        fitted = {**(fitted or UNFITTED), "update": update}
        fitted.pop("conformal", None)
        decisions = replace(decisions, points=local.points)
    return dict(
        model=model,
        processor=processor,
        calibration=fitted,
        tta=config.get("tta", False),
        provenance=config.get("training") or {},
        card=config.get("card") or {},
        decisions=decisions,
        familiarity=Familiarity.read(folder, config.get("familiarity")),
        metrics=read_metrics(folder),
        name=full_name(os.fspath(name)),
        **computing,
    )


def check_members(members: Sequence[Any]) -> Any:
    """The first predictor of an ensemble; ValueError for fewer than two or incompatible members."""
    if len(members) < 2:
        raise ValueError(f"An ensemble needs at least two models, got {len(members)}.")
    first = members[0]
    for other in members[1:]:
        if other.labels != first.labels:
            has = f"{first.name} has {first.labels}, {other.name} has {other.labels}"
            raise ValueError(f"The members of an ensemble need the same classes in the same order: {has}.")
        if other.task.name != first.task.name:
            raise ValueError(f"The members of an ensemble need the same task: {first.name} and {other.name} differ.")
    layouts = {member.image_layout: member.name for member in members}
    layouts.pop(None, None)
    if len(layouts) > 1:
        (one, a), (two, b), *_ = layouts.items()
        raise ValueError(f"The members of an ensemble need the same inputs: {a} reads {one}, {b} reads {two}.")
    return first
