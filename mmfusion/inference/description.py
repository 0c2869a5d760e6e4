"""A predictor in a few lines: its name, classes, inputs, temperature and size."""

from collections.abc import Mapping
from typing import Any

#: class names that are shown; of more, the number is told.
SHOWN = 12


def described(predictor: Any) -> str:
    """Name, classes, inputs, temperature and size, a line each."""
    processor, members = predictor.processor, predictor.members
    labels = list(processor.labels)
    names = ", ".join(labels[:SHOWN]) + (", ..." if len(labels) > SHOWN else "")
    lines = {"classes": f"{len(labels)} ({names})", "inputs": _inputs(predictor)}
    if len(members) == 1:
        fitted = predictor.calibration
        rows = f" (fitted on {fitted['n']:,} {fitted['fitted_on']} rows)" if fitted else ""
        lines["temperature"] = f"{fitted['temperature']:.3f}{rows}" if fitted else "none"
    count = sum(parameter.numel() for parameter in predictor.model.parameters())
    lines["size"] = f"{count / 1e6:,.1f} M parameters" if count else "an exported program"
    return "\n".join([f"{type(predictor).__name__}: {predictor.name}", *(f"  {k}: {v}" for k, v in lines.items())])


def at_temperature(calibration: Mapping[str, Any] | None) -> str:
    """The end of a line about a model: the temperature that its probabilities are at."""
    return f", calibrated with temperature {calibration['temperature']:.3f}" if calibration else ""


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
