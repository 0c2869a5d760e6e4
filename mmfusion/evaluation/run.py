"""``evaluate(config)``: evaluate a trained model on one split of a data set."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfusion.artifacts.folder import read_config
from mmfusion.artifacts.locating import own_folder
from mmfusion.data import CaseTable
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.report import write_report
from mmfusion.files import one_writer
from mmfusion.inference.columns import column_lines, warn_of
from mmfusion.inference.contents import tell_contents, template_of, warn_of_training_rows, with_template
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.rows import AllRows, tell_notices
from mmfusion.inference.run import open_predictor
from mmfusion.inference.split import read_measured, read_split
from mmfusion.records import to_plain
from mmfusion.results import Evaluation
from mmfusion.settings import command_line


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate a trained model on one split of a data set.

    Metrics, predictions, plots and, if requested, the report are written to ``config.output``. Warnings count words
    that the model does not know and truncated texts.

    Raises:
        FileNotFoundError: The model or the data do not exist.
        ValueError: There are bad rows, the data do not have the split, or options exclude each other.
    """
    name = ",".join(config.model)
    loaded = open_predictor(config.model, calibrated=config.calibrated, calibration=config.calibration)
    predictor = with_template(loaded, config.dataset)
    store = _place_of_points(config, predictor is loaded) if config.store else None
    if config.report and isinstance(predictor, Ensemble):
        raise ValueError("--report needs a single model; evaluate the members of an ensemble separately.")
    read: dict[str, Any] = {"dataset": config.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    read["template"] = template_of(predictor)
    split, cases = read_measured(config.data, config.split, **read)
    config = replace(config, split=split)
    output = Path(config.output or _beside_model(config.model, f"evaluation/{config.split}"))
    print(f"evaluating {name} on {len(cases):,} rows ({config.split}) of {config.data}")
    tell_contents(predictor, cases)
    warn_of_training_rows(config.data, split, cases, dataset=config.dataset, provenance=predictor.provenance)
    everything = replace(config, missing_modality=config.missing_modality or config.report)
    warn_of(column_lines([each.processor for each in predictor.members], config.dataset, cases.metadata))
    with one_writer(output):
        found = measure(predictor, cases, everything, validation=_validation(config, read), output=output)
        if store is not None:
            _store(predictor, found, store)
        tell_notices(AllRows(cases, member.processor) for member in predictor.members)
        if config.report:
            title, facts = f"{name} on {config.split}", {"Rows": f"split {config.split} of {config.data}"}
            command = command_line("evaluate", config)
            found.page = write_report(predictor, found, cases, output, title=title, command=command, facts=facts)
    return found


def _validation(config: EvaluateConfig, read: dict[str, Any]) -> CaseTable | None:
    """The rows to fit conformal sets and thresholds on; None if not requested, or absent for a report."""
    needed = config.validation or bool(config.operating_points)
    is_measured = config.split in ("val", "all")
    if needed and is_measured:
        option = "--validation" if config.validation else "--operating_points"
        raise ValueError(f"{option} is fitted on the rows of val, which are part of --split {config.split}.")
    if is_measured or not (needed or config.report):
        return None
    try:
        return read_split(config.data, "val", **read)
    except ValueError:
        if needed:
            raise
        return None


def _beside_model(names: list[str], place: str) -> Path:
    """A folder in the run folder of a local model, or in ``runs`` for any other."""
    if len(names) > 1 or not names[0].startswith("local-dir:"):
        return Path("runs", re.sub("[^A-Za-z0-9._-]+", "-", ",".join(names)), place)
    folder = Path(names[0].removeprefix("local-dir:")).expanduser()
    return (folder.parent if folder.name in ("best", "last") else folder) / place


def _place_of_points(config: EvaluateConfig, is_as_saved: bool) -> Path:
    """The model folder to store operating points in; ValueError if that is not possible."""
    if len(config.model) != 1:
        raise ValueError("store needs a single model, whose folder keeps the operating points.")
    folder = own_folder(config.model[0])
    if "export" in read_config(folder) or not config.calibrated or config.calibration or not is_as_saved:
        raise ValueError(f"{folder}: operating points are stored with the calibrated model; export it afterwards.")
    return folder


def _store(predictor: Predictor, found: Evaluation, folder: Path) -> None:
    """Store the operating points in the model's folder and add them to its card."""
    if not found.decisions or not found.decisions.points:
        raise ValueError("store: no rule could be met on the rows of val, so there is no operating point.")
    predictor.decisions = replace(predictor.decisions, points=[each.point for each in found.decisions.points])
    with one_writer(folder):
        predictor.save_pretrained(folder, {**(predictor.metrics or {}), "decisions": to_plain(found.decisions)})
    print(f"operating points stored in {folder}")
