"""Gradio page of ``mmfusion app``."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from mmfusion.data.tables import SHEET_SUFFIXES, TABLE_SUFFIXES
from mmfusion.explanation.overlay import draw
from mmfusion.inference.columns import read_columns
from mmfusion.inference.contents import template_of
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.reading import read_unlabelled
from mmfusion.inference.run import predict_path
from mmfusion.names import did_you_mean
from mmfusion.serving.config import AppConfig
from mmfusion.serving.diagnosis import Diagnosis, diagnose

ABOUT = """# mmfusion
For research. Not a medical device: no prediction here decides about a patient by itself.
Files stay on the machine that serves this page, and are deleted after ten minutes."""

CSS = """
.gradio-container {width: 100%; max-width: min(1100px, 100vw) !important; margin: auto}
footer {opacity: .7}
"""

#: maximum length of an error message about a table or an image.
_ERRORS = (ValueError, OSError, TypeError, ImportError, KeyError)


def theme() -> gr.themes.Base:
    """Gradio's theme with system fonts, so that none is downloaded."""
    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Default(font=sans, font_mono=mono, primary_hue="teal")


def page(models: Mapping[str, Predictor], config: AppConfig, uploads: Path) -> gr.Blocks:
    """The page.

    Args:
        models: Name -> trained model.
        config: Limits.
        uploads: Folder of uploads; no other files are read.
    """
    names = list(models)
    with gr.Blocks(title="mmfusion", analytics_enabled=False) as blocks:
        gr.Markdown(ABOUT)
        chosen = gr.Dropdown(names, value=names[0], label="Model", interactive=True, elem_id="model")
        with gr.Tab("One case"):

            @gr.render(inputs=chosen)
            def case(name: str) -> None:
                _case(models[name])

        with gr.Tab("Table"):
            _table(models, chosen, config, uploads)

        def predict(model: str, row: dict[str, Any], images: list[gr.FileData]) -> dict[str, Any]:
            """Predict one case.

            Args:
                model: Name of a model in the page's list.
                row: Column -> value, and `text` for free text; absent values are missing.
                images: Image of the case, or its slices or views in order; may be empty.
            """
            paths = [image["path"] for image in images]  # Gradio has checked that they were uploaded
            found = _guarded(lambda: diagnose(models[model], _row(models[model], paths, row), explain=False), paths)
            names = ("label", "probability", "probabilities", "inputs", "numbers")
            given = {name: value for name in names if (value := getattr(found, name)) is not None}
            return {**given, "likely": found.likely, "coverage": found.coverage, "notes": found.notes}

        gr.api(predict, api_name="predict")
    return blocks


def _case(predictor: Predictor) -> None:
    """Input fields of a model and its prediction."""
    layout, processor = predictor.image_layout, predictor.processor
    fields = dict(_fields(predictor))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2):
            files = None
            if layout is not None:
                several = layout in ("slices", "views")
                label = {"slices": "Slices, in the order of their names, or one volume", "views": "Views, in order"}
                files = gr.File(
                    label=label.get(layout, "Bag of features" if layout == "bags" else "Image (PNG, JPEG, DICOM, ...)"),
                    file_count="multiple" if several else "single",
                    elem_id="image",
                    height=140,
                )
            for name, (component, options) in fields.items():
                fields[name] = component(label=name, elem_id=f"field-{name}", **options)
            if processor.tokenizer is not None:
                fields["text"] = gr.Textbox(label="text", lines=2, elem_id="field-text", info="what else is known")
            run = gr.Button("Diagnose", variant="primary", elem_id="run")
        with gr.Column(scale=3):
            answer = gr.Label(label="Probability", elem_id="answer", num_top_classes=10)
            about = gr.Markdown(elem_id="about")
    picture = gr.Image(label="Explanation", elem_id="picture", interactive=False, buttons=["fullscreen"])
    shown = gr.Dataframe(label="With inputs removed", elem_id="shown", interactive=False, visible=False)
    inputs = [*([files] if files is not None else []), *fields.values()]

    def answered(*given: Any) -> tuple[Any, ...]:
        uploaded, cells = (given[0], given[1:]) if files is not None else (None, given)
        paths = sorted(uploaded, key=_basename) if isinstance(uploaded, list) else [uploaded] if uploaded else []
        row = _row(predictor, paths, dict(zip(fields, cells, strict=True)))
        found = _guarded(lambda: diagnose(predictor, row), paths)
        return found.probabilities or _answer(found), _words(found), _picture(found), _taken_away(found)

    run.click(answered, inputs, [answer, about, picture, shown], api_visibility="private")


def _fields(predictor: Predictor) -> Iterator[tuple[str, tuple[Any, dict[str, Any]]]]:
    """(column, (component, its options)) for every column of a model."""
    table = predictor.processor.table
    numeric = {column.name: column for column in table.numeric} if table is not None else {}
    categorical = {column.name: column.values for column in table.categorical} if table is not None else {}
    for name in read_columns(predictor.processor):
        if name in numeric:
            column = numeric[name]
            # An empty gr.Number is shown, and sent, as 0.
            yield name, (gr.Textbox, {"max_lines": 1, "info": f"{column.low:g} to {column.high:g} in training"})
        elif name in categorical:
            yield name, (gr.Dropdown, {"choices": ["", *categorical[name]], "value": "", "allow_custom_value": True})
        else:
            yield name, (gr.Textbox, {"max_lines": 1})


def _row(predictor: Predictor, files: Sequence[str], cells: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row for a predictor; empty cells are missing.

    Raises:
        ValueError: A cell has an unknown column, which might refer to a file of this machine.
    """
    known = ["text", *dict.fromkeys(name for member in predictor.members for name in read_columns(member.processor))]
    if unknown := [name for name in cells if name not in known]:
        raise ValueError(f"The model uses no column {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    row = {name: value for name, value in cells.items() if value not in (None, "")}
    if files:
        key = {"slices": "images", "views": "images", "bags": "bag"}.get(predictor.image_layout or "", "image")
        row[key] = list(files) if key == "images" else files[0]
    return row


def _guarded(call: Callable[[], Any], paths: Sequence[str]) -> Any:
    """Result of a call; errors caused by users are shown without the folders of this machine."""
    try:
        return call()
    except _ERRORS as error:
        message = " ".join(str(error).split()) or type(error).__name__
        for path in paths:
            message = message.replace(str(path), _basename(path)).replace(f"{Path(path).parent}/", "")
        raise gr.Error(message.strip("'\""), duration=None, print_exception=False) from None


def _basename(path: Any) -> str:
    return Path(path).name


def _words(found: Diagnosis) -> str:
    """Text next to the bars."""
    lines = [f"**{_answer(found)}**, based on {found.inputs.replace('+', ' and ')}."]
    if found.likely is not None:
        classes = ", ".join(f"**{name}**" for name in found.likely)
        lines.append(
            f"Set of classes: {classes}. Such sets contain the true class in {found.coverage:.0%} of cases like the "
            "validation data."
        )
    elif found.numbers is None:
        lines.append("The model has no rule for conformal sets.")
    lines += [f"⚠ {note}" for note in found.notes]
    return "\n\n".join(lines)


def _answer(found: Diagnosis) -> str:
    """The prediction in one line: class and probability, or each number with its interval."""
    if found.numbers is None:
        return f"{found.label or 'none of the labels'}, probability {found.probability:.2f}"
    return ", ".join(
        f"{name} {each['value']:.4g}" + ("" if each["low"] is None else f" ({each['low']:.4g} to {each['high']:.4g})")
        for name, each in found.numbers.items()
    )


def _picture(found: Diagnosis) -> Image.Image | None:
    """The explanation as drawn by `mmfusion explain`."""
    if found.explanation is None:
        return None
    file = io.BytesIO()
    FigureCanvasAgg(draw(found.explanation)).figure.savefig(file, dpi=110, bbox_inches="tight")
    return Image.open(file).convert("RGB")


def _taken_away(found: Diagnosis) -> Any:
    """Probability of the class when modalities are removed."""
    if found.explanation is None or found.explanation.contributions is None:
        return gr.Dataframe(visible=False)
    values = found.explanation.contributions.values
    everything = next(iter(values.values()))
    rows = [[shown.replace("+", " + "), f"{p:.3f}", f"{p - everything:+.3f}"] for shown, p in values.items()]
    return gr.Dataframe(pd.DataFrame(rows, columns=["inputs", found.explanation.explained, "change"]), visible=True)


def _table(models: Mapping[str, Predictor], chosen: gr.Dropdown, config: AppConfig, uploads: Path) -> None:
    """Batch prediction: a table and its images, or images only."""
    gr.Markdown(
        "A table (CSV, TSV, XLSX, JSONL, Parquet) with a column `image` and the columns of the model, and the "
        f"image files that it refers to; or only images. At most {config.max_rows:,} rows."
    )
    files = gr.File(label="Table and images", file_count="multiple", elem_id="files", height=160)
    run = gr.Button("Predict", variant="primary", elem_id="run-table")
    csv = gr.File(label="Predictions", elem_id="csv", interactive=False, visible=False)
    shown = gr.Dataframe(label="First rows", elem_id="rows", interactive=False, visible=False)

    def predicted(name: str, paths: list[str] | None) -> tuple[Any, Any]:
        if not paths:
            raise gr.Error("Drop a table or images first.", duration=None, print_exception=False)
        # next to the uploads, so that files need no copy and the table is deleted with them
        with tempfile.TemporaryDirectory(dir=uploads) as folder:
            found = _guarded(lambda: _predictions(models[name], paths, Path(folder), config.max_rows), [*paths, folder])
        return gr.File(str(found), visible=True), gr.Dataframe(pd.read_csv(found, nrows=50), visible=True)

    run.click(predicted, [chosen, files], [csv, shown], api_visibility="private")


def _predictions(predictor: Predictor, paths: Sequence[str], folder: Path, most: int) -> Path:
    """CSV of predictions for uploaded files, which are temporarily in ``folder``."""
    for path in paths:
        (folder / _basename(path)).hardlink_to(path)
    tables = [path for path in folder.iterdir() if path.suffix.lower() in (*TABLE_SUFFIXES, *SHEET_SUFFIXES)]
    if len(tables) > 1:
        raise ValueError(f"Upload one table, not {', '.join(sorted(path.name for path in tables))}.")
    data = tables[0] if tables else folder
    dataset = predictor.dataset
    cases = read_unlabelled(data, dataset, predictor.labels, template_of(predictor))
    if len(cases) > most:
        raise ValueError(f"{data.name} has {len(cases):,} rows, but this page accepts at most {most:,}.")
    output = Path(tempfile.mkdtemp(dir=folder.parent)) / "predictions.csv"
    return predict_path(predictor, data, output, dataset=dataset).path
