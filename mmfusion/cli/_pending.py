"""Verbs and options whose rooms do not have them yet; each entry goes when its room has its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfusion.cli.config import Text
from mmfusion.data.config import DatasetConfig
from mmfusion.experiments.config import StudyConfig, SweepConfig
from mmfusion.settings import command_line
from mmfusion.training.config import RunConfig


@dataclass
class EvaluateConfig:
    """Options of an evaluation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict
            their mean.
        data: root folder of the data set.
        split: rows to evaluate on: ``train``, ``val``, ``test`` or ``all``.
        output: folder for the results; None takes ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        calibrated: apply the temperature that was fitted at the end of training, where there is one.
        subgroups: columns whose values part the rows; numbers go into thirds, ``age:10`` into
            bands of ten.
        validation: fit conformal sets and decision thresholds on the rows of ``val``, and try them on the others.
        coverage: wanted share of conformal sets with the true class.
        sensitivity: wanted of each class's decision threshold.
        missing_modality: also measure with the image alone and the text alone.
        report: write ``report.html``, one page with everything, validation rows and missing modalities included.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: list[str]
    data: str
    split: str = "test"
    output: str | None = None
    batch_size: int = 64
    tta: bool = False
    calibrated: bool = True
    subgroups: list[str] = field(default_factory=list)
    validation: bool = False
    coverage: float = 0.9
    sensitivity: float = 0.9
    missing_modality: bool = False
    report: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class PredictConfig:
    """Options of a prediction.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict
            their mean.
        data: folder of images, folder of a data set, or a table (CSV, Parquet).
        output: CSV file to write.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        calibrated: apply the temperature that was fitted at the end of training, where there is one.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: list[str]
    data: str
    output: str = "predictions.csv"
    batch_size: int = 64
    tta: bool = False
    calibrated: bool = True
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class PushConfig:
    """Options of push.

    Attributes:
        model: saved model: ``local-dir:RUN``.
        repo: ``org/name`` on the Hub; made where there is none.
        private: whether a new repository is private.
        revision: branch to push to; null takes the default one.
        overwrite_card: also replace a README.md there that mmfusion did not write.
        message: of the commit.
    """

    model: str
    repo: str
    private: bool = True
    revision: str | None = None
    overwrite_card: bool = False
    message: str = "Upload model with mmfusion"


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make, for ``Predictor.from_pretrained``; or a file, ``.onnx`` or ``.pt2``, for the program
            alone.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: largest difference of a logit or a probability from the model that is accepted.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4


@dataclass
class SoupConfig:
    """Options of soup.

    Attributes:
        models: runs of one architecture: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make.
        data: root folder of the data set that they were trained on; null averages without measuring.
        method: ``greedy`` takes the models that make the mean no worse on the validation rows, ``uniform`` all; null is
            greedy with data and uniform without.
        metric: validation figure that ``greedy`` looks at.
        batch_size: rows per step.
        dataset: how to read the data; what the first model was trained with, unless said otherwise.
    """

    models: list[str]
    output: str
    data: str | None = None
    method: str | None = None
    metric: str = "balanced_accuracy"
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class ExplainConfig:
    """Options of an explanation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        data: folder of images, folder of a data set, a table, or one image.
        output: folder for a picture and a JSON file per row.
        rows: ids of the rows to explain; none given takes the first ``limit``.
        limit: rows at most.
        label: class to explain; None takes the predicted one of each row.
        method: of the heat map: ``grad_cam``, ``integrated_gradients`` or ``occlusion``.
        level: of the backbone, for ``grad_cam``: -1 is the last, -2 the finer one before.
        text_method: of the words: ``integrated_gradients`` or ``gradient_x_input``.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: str
    data: str
    output: str = "explanations"
    rows: list[str] = field(default_factory=list)
    limit: int = 16
    label: str | None = None
    method: str = "grad_cam"
    level: int = -1
    text_method: str = "integrated_gradients"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)


def train(config: RunConfig) -> Text:
    """Train a model on a table of cases."""
    from mmfusion.training import train

    train(config)
    return Text()


def compare(config: StudyConfig) -> Text:
    """Train runs that differ in one thing, over several seeds, and say what the difference is worth."""
    from mmfusion.experiments import compare

    compare(config)
    return Text()


def sweep(config: SweepConfig) -> Text:
    """Search ranges of settings for the best validation figure."""
    from mmfusion.experiments import sweep

    sweep(config)
    return Text()


def evaluate(config: EvaluateConfig) -> Text:
    """Measure a trained model on one split of a data set."""
    from mmfusion.evaluation.evaluate import evaluate, read_split

    predictor = _predictor(config.model, config.calibrated)
    if config.report and len(config.model) > 1:
        raise ValueError("--report looks into one model; evaluate the models of an ensemble one by one.")
    read: dict[str, Any] = {"dataset": config.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    cases = read_split(config.data, config.split, **read)
    output = config.output or _beside_model(config.model, f"evaluation/{config.split}")
    print(f"evaluating {', '.join(config.model)} on {len(cases):,} rows ({config.split}) of {config.data}")
    metrics = evaluate(
        predictor.model,
        predictor.processor,
        cases,
        output=output,
        on_bad_row=config.dataset.on_bad_row,
        batch_size=config.batch_size,
        tta=config.tta,
        channels_last=predictor.channels_last,
        subgroups=config.subgroups,
        validation=_validation(config, read),
        coverage=config.coverage,
        sensitivity=config.sensitivity,
        missing_modality=config.missing_modality or config.report,
    )
    _print_figures(metrics)
    use = {"experts": metrics["expert_use"]} if "expert_use" in metrics else {}
    use |= {f"gate {name}": shares for name, shares in metrics.get("gates", {}).items()}
    for name, shares in use.items():
        print(f"  {name:18} {' '.join(f'{share:.2f}' for share in shares['mean'])}")
    print(f"metrics.json, predictions.csv and plots are in {output}")
    if config.report:
        from mmfusion.evaluation.report import write_report

        facts = {"Rows": f"split {config.split} of {config.data}"}
        title = f"{config.model[0]} on {config.split}"
        command = command_line("evaluate", config)
        print(
            f"the page is {write_report(output, metrics, cases, predictor, title=title, command=command, facts=facts)}"
        )
    return Text()


def _validation(config: EvaluateConfig, read: dict[str, Any]) -> Any:
    """The rows to fit conformal sets and thresholds on; None where none were asked for, or a report finds none."""
    from mmfusion.evaluation.evaluate import read_split

    if config.validation and config.split in ("val", "all"):
        raise ValueError(f"--validation fits on the rows of val, which are among those of --split {config.split}.")
    if not (config.validation or config.report) or config.split in ("val", "all"):
        return None
    try:
        return read_split(config.data, "val", **read)
    except ValueError:
        if config.validation:
            raise
        return None


def _print_figures(metrics: dict[str, Any]) -> None:
    from mmfusion.evaluation.intervals import interval_text
    from mmfusion.evaluation.metrics import HEADLINE

    print(
        "figures, with {level:.0%} intervals ({groups:,} groups drawn {replicates:,} times):".format(
            **metrics["bootstrap"]
        )
    )
    for name in HEADLINE:
        print(f"  {name:18} {interval_text(metrics['intervals'][name])}")
    if found := metrics["calibration"]:
        before, after = found["before"], found["after"]
        print(
            f"calibrated with temperature {found['temperature']:.3f} ({found['fitted_on']}, {found['n']:,} rows): "
            f"ece {before['ece']:.3f} -> {after['ece']:.3f}, nll {before['nll']:.3f} -> {after['nll']:.3f}; "
            "--calibrated false leaves it out"
        )
    for column, parts in metrics.get("subgroups", {}).items():
        print(f"balanced accuracy by {column}:")
        for part in parts:
            rows = f"{part['n']:,} rows, {part['classes']} classes{', small' if part['small'] else ''}"
            print(f"  {part['value']:18} {interval_text(part['balanced_accuracy'])}  ({rows})")
    if "conformal" in metrics:
        print(f"conformal sets for {metrics['conformal']['wanted']:.0%} coverage:")
        for name, found in metrics["conformal"].items():
            if isinstance(found, dict):
                covered, size = interval_text(found["coverage"]), interval_text(found["mean_size"], 2)
                print(f"  {name:18} coverage {covered}, classes in a set {size}")
    if "thresholds" in metrics:
        print(f"thresholds for a sensitivity of {metrics['thresholds']['wanted']:.0%} on the validation rows:")
        for name, found in metrics["thresholds"]["per_class"].items():
            if found["threshold"] is None:
                print(f"  {name:18} no validation rows")
            else:
                figures = (f"{figure} {interval_text(found[figure])}" for figure in ("sensitivity", "specificity"))
                print(f"  {name:18} from {found['threshold']:.4f} on: {', '.join(figures)}")
    if metrics.get("missing_modality") == []:
        print("no modality to take away: the model reads one, or no row has both")
    for row in metrics.get("missing_modality", ()):
        print(
            f"  {row['shown']:18} balanced accuracy {interval_text(row['balanced_accuracy'])}, "
            f"{row['changed']:.1%} named otherwise  ({row['n']:,} rows)"
        )


def predict(config: PredictConfig) -> Text:
    """Predict a folder of images or a table, and write a CSV."""
    predictor = _predictor(config.model, config.calibrated)
    print(f"predicting {config.data} with {_described(config.model, predictor)}")
    rows, unreadable = predictor.predict_path(
        config.data, config.output, dataset=config.dataset, tta=config.tta, batch_size=config.batch_size
    )
    failed = f"; {unreadable:,} could not be read, see the column error" if unreadable else ""
    print(f"{rows:,} rows in {config.output}{failed}")
    return Text()


def push(config: PushConfig) -> Text:
    """Push a saved model to the Hugging Face Hub, in one commit."""
    from mmfusion.models import push_to_hub, resolve_artifact

    folder = resolve_artifact(config.model)
    print(f"pushing {folder} to {config.repo}")
    commit = push_to_hub(
        folder,
        config.repo,
        private=config.private,
        revision=config.revision,
        overwrite_card=config.overwrite_card,
        message=config.message,
    )
    print(f"{commit}\nload it with mmfusion.create_model('hf-hub:{config.repo}')")
    return Text()


def export(config: ExportConfig) -> Text:
    """Export a trained model to ONNX or torch.export, and compare what was written with the model."""
    from mmfusion.exporting import export_model

    print(f"exporting {config.model} to {config.format} (tracing takes a while)")
    exported = export_model(config.model, config.output, format=config.format, tolerance=config.tolerance)
    print(
        f"largest difference from the model {exported.difference:.1e}, over batches of several sizes, with missing "
        f"modalities\nwritten to {exported.path}"
    )
    if exported.path.is_dir() and config.format == "onnx":
        print(f"use it with mmfusion predict --model local-dir:{exported.path} --data DATA")
    return Text()


_BATCH_NORM = {
    "estimated": "BatchNorm's statistics were measured again, on training rows",
    "averaged": "BatchNorm's statistics were averaged like weights, which is wrong in general: give --data to measure "
    "them again on training rows",
}


def soup(config: SoupConfig) -> Text:
    """Average the weights of several runs of one architecture into one model."""
    from mmfusion.averaging import make_soup

    print(f"a soup of {len(config.models)} models")
    found = make_soup(
        config.models,
        config.output,
        data=config.data,
        dataset=config.dataset if config.data is not None else None,
        method=config.method,
        metric=config.metric,
        batch_size=config.batch_size,
    )
    for name in [*found.ingredients, *(name for name in found.scores if name not in found.ingredients)]:
        score = f"{config.metric} {found.scores[name]:.4f}, " if name in found.scores else ""
        print(f"  {name}: {score}{'in the soup' if name in found.ingredients else 'left out'}")
    if found.score is None:
        print("not measured, and without a temperature: give --data for both")
    else:
        what = f"the soup of {len(found.ingredients)}" if len(found.ingredients) > 1 else "no other helps it: the best"
        print(f"{what} has {config.metric} {found.score:.4f} on the validation rows")
        if found.better_alone is not None:
            print(f"{found.better_alone} alone is better there than this soup")
    if found.batch_norm in _BATCH_NORM:
        print(_BATCH_NORM[found.batch_norm])
    print(f"saved in {found.path}")
    return Text()


def explain(config: ExplainConfig) -> Text:
    """Show where a trained model looks, which words it reads, and how much image and text count."""
    predictor = _predictor([config.model])
    print(f"explaining {config.data} with {config.model}")
    results = predictor.explain_path(
        config.data,
        config.output,
        ids=config.rows or None,
        limit=config.limit,
        dataset=config.dataset,
        label=config.label,
        method=config.method,
        level=config.level,
        text_method=config.text_method,
    )
    failed = {id_: reason for id_, reason in results.items() if reason is not None}
    for id_, reason in failed.items():
        print(f"  {id_}: {reason}")
    print(f"{len(results) - len(failed):,} rows explained in {config.output}; {len(failed):,} could not be read")
    return Text()


def _predictor(models: list[str], calibrated: bool = True) -> Any:
    from mmfusion.hardware import resolve_channels_last
    from mmfusion.inference.predictor import Predictor

    return Predictor.from_pretrained(
        models if len(models) > 1 else models[0], channels_last=resolve_channels_last(None), calibrated=calibrated
    )


def _described(models: list[str], predictor: Any) -> str:
    """The model's name, with its temperature; several as what they are."""
    if len(models) > 1:
        return f"the mean of {len(models)} models: {', '.join(models)}"
    model = models[0]
    fitted = predictor.model.calibration
    return f"{model}, calibrated with temperature {fitted['temperature']:.3f}" if fitted else model


def _beside_model(models: list[str], name: str) -> Path:
    """A folder in the run folder of a local model, and below ``runs`` for any other."""
    model = ",".join(models)
    if not model.startswith("local-dir:") or len(models) > 1:
        return Path("runs", re.sub("[^A-Za-z0-9._-]+", "-", model), name)
    folder = Path(model.removeprefix("local-dir:")).expanduser()
    return (folder.parent if folder.name in ("best", "last") else folder) / name
