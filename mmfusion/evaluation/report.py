"""One page that shows an evaluation: figures with intervals, plots, subgroups, and the errors to look at.

The page is one file: pictures are inside it, and it asks nothing of a network.
"""

from __future__ import annotations

import base64
import io
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib import colormaps
from PIL import Image

from mmfusion._version import __version__
from mmfusion.data import CaseTable
from mmfusion.data.images import open_image
from mmfusion.evaluation.intervals import interval_text
from mmfusion.evaluation.metrics import HEADLINE
from mmfusion.inference.rows import ROW_ERRORS, AllRows

logger = logging.getLogger(__name__)

#: errors that are explained with a heat map and words.
EXPLAINED = 6

#: pixels of the longer side of a picture.
SIDE = 240

PLOTS = {
    "confusion_matrix.png": ("Confusion matrix", "Rows are true classes, columns what the model said."),
    "roc.png": ("ROC curves", "Each class against all others."),
    "reliability.png": ("Reliability", "On the diagonal, a confidence of 0.8 comes true in eight of ten cases."),
    "risk_coverage.png": ("Risk and coverage", "Errors left when only the surest cases are answered."),
}

MEANINGS = {
    "accuracy": "share of rows that are right",
    "balanced_accuracy": "mean sensitivity of the classes, each counted alike",
    "macro_f1": "mean of the classes' F1",
    "macro_auroc": "mean area under the classes' ROC curves",
    "ece": "calibration error: mean distance of confidence from accuracy; 0 is best",
    "nll": "negative log-likelihood; 0 is best",
    "brier": "squared distance of the probabilities from the truth, 0 to 2; 0 is best",
}


def write_report(
    folder: str | Path,
    metrics: Mapping[str, Any],
    cases: CaseTable,
    predictor: Any,
    *,
    title: str,
    command: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into the folder of an evaluation.

    Args:
        folder: where :func:`~mmfusion.evaluation.evaluate.evaluate` left its plots.
        metrics: what it returned.
        cases: the rows that it measured.
        predictor: a ``Predictor``, which explains the worst errors where captum is installed.
        title: of the page.
        command: that makes the page again.
        facts: further lines of the table about the run, name -> value.

    Returns:
        The file.
    """
    folder = Path(folder)
    template = resources.files("mmfusion.evaluation").joinpath("templates/report.html.jinja")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = interval_text
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    plots = [
        {"src": _file_uri(folder / name), "title": heading, "caption": caption, "name": name}
        for name, (heading, caption) in PLOTS.items()
        if (folder / name).is_file()
    ]
    rules = {name: rule for name, rule in metrics.get("conformal", {}).items() if isinstance(rule, Mapping)}
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        metrics=metrics,
        headline=HEADLINE,
        meanings=MEANINGS,
        plots=plots,
        rules=rules,
        errors=list(_errors(metrics["worst_errors"], cases, predictor)),
        facts={
            **_model_facts(predictor),
            **(facts or {}),
            "Data fingerprint": cases.fingerprint(),
            "Command": command,
            "Versions": ", ".join(f"{name} {number}" for name, number in _versions().items()),
        },
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _model_facts(predictor: Any) -> dict[str, str]:
    provenance, model = predictor.provenance, predictor.model
    rows = ", ".join(f"{count:,} {split}" for split, count in (provenance.get("rows") or {}).items())
    facts = {
        "Model": f"{model.architecture or 'custom'}, {sum(p.numel() for p in model.parameters()):,} parameters",
        "Trained on": rows,
        "Fingerprint of all training data": provenance.get("data_fingerprint", ""),
    }
    return {name: value for name, value in facts.items() if value}


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "transformers", "numpy", "scikit-learn")
    return {
        "mmfusion": __version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _errors(worst: Sequence[Mapping[str, Any]], cases: CaseTable, predictor: Any) -> Iterator[dict[str, Any]]:
    """The worst errors, each with its picture and text, the first ones explained."""
    rows = AllRows(cases, predictor.processor)
    places = {row: place for place, row in enumerate(cases.frame.index)}
    for number, error in enumerate(worst):
        place = places[error["row"]]
        paths = cases.frame["image"].iloc[place]
        paths = [] if paths is None else [paths] if isinstance(paths, str) else [path for path in paths if path]
        found: dict[str, Any] = {**error, "picture": None, "heat": None, "words": None, "text": None}
        if paths:  # also for a model that reads text alone: whoever looks into the error wants to see the case
            found["picture"] = _picture_uri(cases.image_root / paths[len(paths) // 2])
        if predictor.processor.tokenizer is not None:
            found["text"] = predictor.processor.text_of(cases.frame.iloc[place].to_dict())
        if number < EXPLAINED:
            image = cases.image_root / paths[0] if len(paths) == 1 and cases.layout == "image" else None
            found |= _explained(predictor, rows, place, image)
        yield found


def _explained(predictor: Any, rows: AllRows, place: int, image: Path | None) -> dict[str, Any]:
    """Heat map and words of one row; nothing where captum is missing, or the row has nothing to explain."""
    from mmfusion.explanation import explain

    try:
        explanation = explain(predictor, rows[place], image=image)
    except ImportError:
        return {}
    except ROW_ERRORS as error:
        logger.warning("%s cannot be explained: %s", rows.ids[place], error)
        return {}
    found: dict[str, Any] = {}
    heat_maps, pictures, boxes = explanation.heat_maps, explanation.pictures, explanation.boxes
    if heat_maps and pictures and boxes:
        # of several pictures the one with the most evidence
        name = max(heat_maps, key=lambda picture: float(heat_maps[picture].max()))
        found["heat"] = _uri(_laid_over(pictures[name], heat_maps[name], boxes[name]))
    if explanation.words:
        strongest = max(abs(value) for _, value in explanation.words) or 1.0
        found["words"] = [(word, value / strongest) for word, value in explanation.words]
    return found


def _laid_over(picture: Any, heat: Any, box: tuple[float, float, float, float]) -> Image.Image:
    """The picture, small, under the colours of the heat map, transparent where nothing speaks for the class."""
    base = Image.fromarray(picture).convert("RGBA")
    scale = SIDE / max(base.size)
    base = base.resize((round(base.width * scale), round(base.height * scale)))
    left, top, right, bottom = (round(edge * scale) for edge in box)
    colours = colormaps["inferno"](heat)
    colours[..., 3] = 0.65 * np.clip(heat, 0, 1)
    layer = Image.fromarray((colours * 255).astype(np.uint8))
    whole = Image.new("RGBA", base.size)
    whole.paste(layer.resize((right - left, bottom - top)), (left, top))
    return Image.alpha_composite(base, whole).convert("RGB")


def _picture_uri(path: Path) -> str | None:
    try:
        picture = open_image(path)
    except ROW_ERRORS:
        return None
    picture.thumbnail((SIDE, SIDE))
    return _uri(picture)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _file_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
