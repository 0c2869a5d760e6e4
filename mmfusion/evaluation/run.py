"""``evaluate(config)``: measure a trained model on one split of a data set."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfusion.artifacts.folder import read_config
from mmfusion.artifacts.locating import folder_of, model_in
from mmfusion.data import CaseTable
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.report import write_report
from mmfusion.files import one_writer
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.columns import column_lines, warn_of
from mmfusion.inference.contents import tell_contents, template_of, warn_of_training_rows, with_template
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.rows import AllRows, tell_notices
from mmfusion.inference.split import read_measured, read_split
from mmfusion.records import to_plain
from mmfusion.results import Evaluation
from mmfusion.settings import command_line


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Measure a trained model on one split of a data set.

    Figures, predictions and plots are left in ``config.output``, and the page, where one was asked for. A warning
    counts words that the model does not know, and texts that were cut.

    Raises:
        FileNotFoundError: There is no such model, or there are no such data.
        ValueError: Bad rows, a split that the data do not have, or options that exclude each other.
    """
    name = ",".join(config.model)
    predictor = Predictor.from_pretrained(
        config.model,
        channels_last=resolve_channels_last(None),
        calibrated=config.calibrated,
        calibration=config.calibration,
    )
    if config.report and isinstance(predictor, Ensemble):
        raise ValueError("--report looks into one model; evaluate the models of an ensemble one by one.")
    read: dict[str, Any] = {"dataset": config.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    predictor = with_template(predictor, config.dataset)
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
        if config.store:
            _store(predictor, found, config)
        tell_notices(AllRows(cases, member.processor) for member in predictor.members)
        if config.report:
            title, facts = f"{name} on {config.split}", {"Rows": f"split {config.split} of {config.data}"}
            command = command_line("evaluate", config)
            found.page = write_report(predictor, found, cases, output, title=title, command=command, facts=facts)
    return found


def _validation(config: EvaluateConfig, read: dict[str, Any]) -> CaseTable | None:
    """The rows to fit conformal sets and thresholds on; None where none were asked for, or a report finds none."""
    if (config.validation or config.operating_points) and config.split in ("val", "all"):
        option = "--validation" if config.validation else "--operating_points"
        raise ValueError(f"{option} fits on the rows of val, which are among those of --split {config.split}.")
    needed = config.validation or bool(config.operating_points)
    if not (needed or config.report) or config.split in ("val", "all"):
        return None
    try:
        return read_split(config.data, "val", **read)
    except ValueError:
        if needed:
            raise
        return None


def _beside_model(names: list[str], place: str) -> Path:
    """A folder in the run folder of a local model, and below ``runs`` for any other."""
    if len(names) > 1 or not names[0].startswith("local-dir:"):
        return Path("runs", re.sub("[^A-Za-z0-9._-]+", "-", ",".join(names)), place)
    folder = Path(names[0].removeprefix("local-dir:")).expanduser()
    return (folder.parent if folder.name in ("best", "last") else folder) / place


def _store(predictor: Predictor, found: Evaluation, config: EvaluateConfig) -> None:
    """Keep the operating points in the folder of the model, whose card then tells them."""
    if len(config.model) != 1 or not found.decisions:
        raise ValueError("store keeps operating points in the folder of one model.")
    folder = model_in(folder_of(config.model[0]))
    if folder is None:
        raise ValueError(
            f"store writes into a folder of your own, and {config.model[0]} is none; copy the model first."
        )
    if "export" in read_config(folder) or not config.calibrated or config.calibration:
        raise ValueError(f"{folder}: operating points are stored with the calibrated model itself; then export it.")
    predictor.decisions = replace(predictor.decisions, points=[each.point for each in found.decisions.points])
    predictor.save_pretrained(folder, {**(predictor.metrics or {}), "decisions": to_plain(found.decisions)})
    print(f"the operating points are kept in {folder}")
