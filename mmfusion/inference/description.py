"""Short text description of a predictor: name, classes, inputs, calibration and size."""

from typing import Any

from mmfusion.results import calibration_words

#: Maximum number of class names shown.
SHOWN = 12

#: Description of a model that averages over test-time augmentations.
VIEWS = "mean over test-time augmentations"


def described(predictor: Any) -> str:
    """Name, labels, inputs, calibration, test-time augmentation and size, one line each."""
    processor, members = predictor.processor, predictor.members
    labels = list(processor.labels)
    names = ", ".join(labels[:SHOWN]) + (", ..." if len(labels) > SHOWN else "")
    lines = {predictor.task.noun: f"{len(labels)} ({names})", "inputs": _inputs(predictor)}
    if len(members) == 1:
        fitted = predictor.calibration
        lines["calibration"] = calibration_words(fitted) if fitted else "none"
        if predictor.tta:
            lines["views"] = f"{VIEWS}, unless tta=False"
    count = sum(parameter.numel() for parameter in predictor.model.parameters())
    lines["size"] = f"{count / 1e6:,.1f} M parameters" if count else "exported model"
    return "\n".join([f"{type(predictor).__name__}: {predictor.name}", *(f"  {k}: {v}" for k, v in lines.items())])


def how_it_predicts(predictor: Any, tta: bool | None = None) -> str:
    """Suffix of a line about a model: its calibration and test-time augmentation."""
    calibrated = f", calibrated with {calibration_words(predictor.calibration)}" if predictor.calibration else ""
    return calibrated + (f", {VIEWS}" if (predictor.tta if tta is None else tta) else "")


def _inputs(predictor: Any) -> str:
    processor, members, found = predictor.processor, predictor.members, []
    layout = members[0].image_layout
    if processor.bag_dim is not None:
        found.append(f"bags (vectors {processor.bag_dim} wide)")
    elif processor.image_size is not None and layout is not None:
        found.append(f"{layout} ({processor.image_size} x {processor.image_size} pixels)")
    if processor.tokenizer is not None:
        found.append(f'text ("{processor.text_template}")' if processor.text_template else "text")
    if processor.table is not None:
        found.append(f"table ({', '.join(processor.table.names)})")
    return ", ".join(found)
