"""Compares the modalities of a run's model with its training rows before any image is opened."""

from typing import Any

from mmfusion.artifacts.folder import is_saved, read_config, resolve_artifact
from mmfusion.data import CaseTable
from mmfusion.data.contents import contents_of
from mmfusion.models.factory import resolve_config
from mmfusion.text.template import template_fields
from mmfusion.training.config import RunConfig
from mmfusion.training.weights import tower_starts


def may_leave_text_out(config: RunConfig) -> bool:
    """Whether the text tower may be dropped if no training row has a text.

    This applies to a new model with another modality, if the settings mention neither its texts nor what joins them
    with the images.
    """
    model, dataset = config.model, config.dataset
    asked: list[Any] = [model.text_encoder, model.text_args, dataset.text_column, dataset.text_template]
    if not dataset.reads_columns:
        asked += [model.fusion, model.fusion_args, model.dim, model.modality_dropout]
        asked += [config.train.loss] if config.train.loss == "mp" else []
    if is_saved(model.name) or any(value is not None for value in asked):
        return False
    parts: dict[str, Any] = resolve_config(model.name, **model.overrides())
    others = parts["image_encoder"] is not None or dataset.reads_columns or parts["towers"]
    return parts["text_encoder"] is not None and bool(others)


def check_contents(config: RunConfig, cases: CaseTable) -> str:
    """Coverage of the training rows in one line. Before a split is drawn, all rows count.

    Raises:
        ValueError: The model needs images or texts and no training row has one, unless the text tower is dropped later
            (:func:`may_leave_text_out`); or the weights of the text tower would have to be downloaded.
    """
    model, dataset = config.model, config.dataset
    saved = read_config(resolve_artifact(model.name)) if is_saved(model.name) else None
    parts: dict[str, Any] = resolve_config(model.name, **model.overrides()) if saved is None else saved["model"]
    processor = (saved or {}).get("processor") or {}
    rows = cases.select("train") if cases.splits.get("train") else cases
    template = dataset.text_template or processor.get("text_template")
    found = contents_of(rows, template=template, missing_values=dataset.missing_values, columns=dataset.named_columns)
    fields = template_fields(template or "") if dataset.text_template is None else ()
    lacking = [name for name in fields if name not in cases.metadata]
    if lacking and rows.frame["text"].isna().all():
        raise ValueError(
            f"{cases.source} has no column {', '.join(lacking)}, which the text template of {model.name} uses; it has "
            f"{', '.join(cases.metadata)}. Map columns with dataset.columns ({{{lacking[0]}: ...}}), or set another "
            "dataset.text_template."
        )
    if parts["image_encoder"] is not None and not found.image:
        ways = ["set their column with --dataset.image_column"]
        raise _absent(cases, config, "an image", ways, "images", "image", saved is None)
    dispensable = may_leave_text_out(config)
    if dispensable and found.text:
        tower_starts(config)
    if parts["text_encoder"] is not None and not found.text and not dispensable:
        ways = ["set their column with --dataset.text_column", "build them from columns with --dataset.text_template"]
        raise _absent(cases, config, "a text", ways, "texts", "text", saved is None)
    return found.line("training rows")


def _absent(
    cases: CaseTable, config: RunConfig, what: str, ways: list[str], several: str, modality: str, is_new: bool
) -> ValueError:
    ways += [f"drop the {several} with --model.{modality}_encoder none"] if is_new else []
    told = f"{', '.join(ways[:-1])}, or {ways[-1]}" if len(ways) > 1 else ways[0]
    return ValueError(f"{cases.source}: no training row has {what}, which {config.model.name} needs; {told}.")
