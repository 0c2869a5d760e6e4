"""HTML report of an evaluation: metrics with intervals, plots, subgroups, and the worst errors.

The report is a single file with embedded images and needs no network.
"""

import base64
import io
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps
from PIL import Image

from mmfusion._version import __version__
from mmfusion.data import CaseTable
from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.files import write_text
from mmfusion.images.opening import open_image
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import ROW_ERRORS, AllRows
from mmfusion.results import Evaluation, WorstError, calibration_words

logger = logging.getLogger(__name__)

#: Number of errors explained with heat map and words.
EXPLAINED = 6

#: Pixels of the longer side of an image.
SIDE = 240

PLOTS = {
    "confusion_matrix.png": ("Confusion matrix", "Rows are true classes, columns predicted ones."),
    "roc.png": ("ROC curves", "One-vs-rest."),
    "reliability.png": ("Reliability", "Accuracy by confidence; a calibrated model is on the diagonal."),
    "values.png": ("Values", "Predicted against true values."),
    "risk_coverage.png": ("Risk and coverage", "Error rate if only the most confident cases are answered."),
}


def write_report(
    predictor: Predictor,
    evaluation: Evaluation,
    cases: CaseTable,
    folder: str | Path,
    *,
    title: str,
    command: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into the folder of an evaluation.

    Args:
        predictor: The evaluated model; it explains the worst errors if captum is installed.
        evaluation: Results.
        cases: The evaluated rows.
        folder: Folder with the plots of :func:`~mmfusion.evaluation.measure.measure`.
        title: Title of the report.
        command: Command that recreates the report.
        facts: Additional rows of the table about the run, name -> value.

    Returns:
        The file.
    """
    folder = Path(folder)
    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    loader = PackageLoader("mmfusion.evaluation")
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    plots = [
        {"src": _uri((folder / name).read_bytes(), "png"), "title": heading, "caption": caption}
        for name, (heading, caption) in PLOTS.items()
        if (folder / name).is_file()
    ]
    packages = ("torch", "timm", "transformers", "numpy", "scikit-learn")
    versions = {"mmfusion": __version__, "Python": platform.python_version()} | {p: version(p) for p in packages}
    page = environment.get_template("report.html.jinja").render(
        title=title,
        evaluation=evaluation,
        metrics=EVERY_METRIC,
        calibration=calibration_words(vars(found)) if (found := evaluation.calibration) else "",
        plots=plots,
        errors=list(_errors(evaluation.worst_errors, cases, predictor)),
        facts={
            **_model_facts(predictor),
            **(facts or {}),
            "Data fingerprint": cases.fingerprint(),
            "Command": command,
            "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        },
    )
    path = folder / "report.html"
    write_text(path, page)
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


def _errors(worst: Sequence[WorstError], cases: CaseTable, predictor: Predictor) -> Iterator[dict[str, Any]]:
    """The worst errors with image and text, the first ones explained."""
    rows = AllRows(cases, predictor.processor)
    places = {row: place for place, row in enumerate(cases.frame.index)}
    for number, error in enumerate(worst):
        place = places[error.row]
        paths = cases.frame["image"].iloc[place]
        paths = [] if paths is None else [paths] if isinstance(paths, str) else [path for path in paths if path]
        found: dict[str, Any] = dict.fromkeys(("picture", "heat", "words", "columns", "text")) | vars(error)
        if paths:  # also for a text-only model, since a reader needs to see the case
            found["picture"] = _small(cases.image_root / paths[len(paths) // 2])
        if predictor.processor.tokenizer is not None:
            found["text"] = predictor.processor.text_of(cases.frame.iloc[place].to_dict())
        if number < EXPLAINED:
            image = cases.image_root / paths[0] if len(paths) == 1 and cases.layout == "image" else None
            found |= _explained(predictor, rows, place, image)
        yield found


def _explained(predictor: Predictor, rows: AllRows, place: int, image: Path | None) -> dict[str, Any]:
    """Heat map and words of one row; empty without captum, or if nothing can be explained."""
    from mmfusion.explanation import explain_item

    try:
        explanation = explain_item(predictor, rows[place], image=image)
    except ImportError:
        return {}
    except ROW_ERRORS as error:
        logger.warning("%s cannot be explained: %s", rows.ids[place], error)
        return {}
    found: dict[str, Any] = {}
    heat_maps, pictures, boxes = explanation.heat_maps, explanation.pictures, explanation.boxes
    if heat_maps and pictures and boxes:
        # of several images, the one with the most evidence
        name = max(heat_maps, key=lambda picture: float(heat_maps[picture].max()))
        found["heat"] = _jpeg(_laid_over(pictures[name], heat_maps[name], boxes[name]))
    found["columns"] = explanation.columns
    if explanation.words:
        strongest = max(abs(value) for _, value in explanation.words) or 1.0
        found["words"] = [(word, value / strongest) for word, value in explanation.words]
    return found


def _laid_over(picture: Any, heat: Any, box: tuple[float, float, float, float]) -> Image.Image:
    """Thumbnail of the image under the heat map, which is transparent without evidence for the class."""
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


def _small(path: Path) -> str | None:
    try:
        picture = open_image(path, slice="middle")
    except ROW_ERRORS:
        return None
    picture.thumbnail((SIDE, SIDE))
    return _jpeg(picture)


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
