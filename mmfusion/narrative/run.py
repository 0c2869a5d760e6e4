"""Narratives of a whole data set, written as the files that mmfusion reads (``dataset.format: report``)."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, load_tokenizer, read_cases
from mmfusion.narrative.config import NarrativeConfig
from mmfusion.narrative.narrator import Narrative, Narrator
from mmfusion.text.guard import LeakGuard, list_synonyms, read_synonyms


def build_narrator(config: NarrativeConfig, cases: CaseTable, dataset: DatasetConfig) -> Narrator:
    """The narrator that a configuration describes, guarded against the labels of the cases.

    Raises:
        ValueError: there is no template, it names a column that the cases do not have, or any argument of the narrator.
    """
    template = config.template if config.template is not None else dataset.text_template
    if template is None:
        raise ValueError(
            'narrate needs --narrative.template, e.g. "{age}-year-old {sex}, lesion on the {localization}".'
        )
    source = config.synonyms or (config.knowledge if config.knowledge in list_synonyms() else None)
    guard = LeakGuard(
        sorted(set(cases.frame["label"].dropna())),
        read_synonyms(source) if source is not None else {},
        columns=[dataset.label_column, *(config.leaking_columns or ())],
    )
    narrator = Narrator(
        template,
        config.retriever,
        config.top_k,
        knowledge=config.knowledge,
        guard=guard,
        on_leak=config.on_leak,
        weighting=config.weighting,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        tokenizer=load_tokenizer(config.tokenizer) if config.tokenizer is not None else None,
        missing_values=dataset.missing_values,
        retriever_args={"encoder": config.encoder} if config.retriever == "dense" else None,
    )
    unknown = [name for name in narrator.fields if name not in cases.metadata]
    if unknown:
        raise ValueError(
            f"The template names {', '.join(map(repr, unknown))}; the metadata columns are {', '.join(cases.metadata)}."
        )
    return narrator


def narrate(
    data: str | Path,
    output: str | Path,
    config: NarrativeConfig | None = None,
    dataset: DatasetConfig | None = None,
) -> dict[str, Any]:
    """Write the narrative of every row of a data set.

    ``output`` gets ``response.json``, image id -> narrative, sorted; ``image.csv`` with image id, label, group, split
    and the metadata that do not leak, so that studies and views can be read as before; and ``narrative.json``, the
    settings, what the guard removed, and how often each passage was used. The same data and settings give the same
    bytes. The images stay where they are: read the output with ``dataset.image_root``.

    Args:
        data: folder of the data set, or its table.
        output: folder to write; made where it does not exist.
        config: how narratives are written.
        dataset: how to read the data.

    Returns:
        What ``narrative.json`` holds, and ``example``, the first narrative.

    Raises:
        FileNotFoundError: the data or a file named in the configuration do not exist.
        ValueError: bad rows with ``on_bad_row: fail``, two texts for one image, or a bad configuration.
    """
    config, dataset = config or NarrativeConfig(), dataset or DatasetConfig()
    output = Path(output)
    # Row by row: what belongs to one study is put together when the output is read.
    rowwise = replace(dataset, study_column=None, slice_column=None, max_slices=None, view_column=None, views=[])
    cases = read_cases(data, rowwise, require_labels=False).resolve(dataset.on_bad_row)
    _check_output(output, cases)
    narrator = build_narrator(config, cases, dataset)
    rows = [_with_views(row, dataset.view_columns) for row in cases.frame.to_dict("records")]
    narratives = [_narrative(narrator, row) for row in rows]
    summary = {
        "rows": len(rows),
        "without_text": sum(not narrative.text for narrative in narratives),
        "without_image": [row["id"] for row in rows if row["image"] is None],
        "settings": {**asdict(config), "template": narrator.template},
        "image_root": os.path.relpath(cases.image_root, output),
        "dropped_columns": narrator.dropped_columns,
        "unguarded_labels": narrator.guard.numbers,
        "removed_from_passages": narrator.removed,
        "removed_from_rows": dict(sorted(Counter(word for n in narratives for word in n.removed).items())),
        "passages": dict(sorted(Counter(p.id for n in narratives for p in n.passages if p.text).items())),
    }
    texts = _texts(rows, narratives)
    renamed = (dataset.group_column, dataset.split_column, dataset.id_column)
    columns = [name for name in cases.metadata if name not in renamed and not narrator.guard.leaking([name])]
    output.mkdir(parents=True, exist_ok=True)
    with (output / "image.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [name for name in ("id", "label", "group", "split") if cases.frame[name].notna().any()]
        names = [name for name in names if name != "id" or not cases.frame["id"].equals(cases.frame["image"])]
        columns = [*dataset.view_columns, *(name for name in columns if name not in ("image", *names))]
        writer.writerow(["image", *names, *columns])
        writer.writerows([row[name] for name in ("image", *names, *columns)] for row in rows)
    for name, content in (("response.json", texts), ("narrative.json", summary)):
        (output / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {**summary, "example": narratives[0].text}


def _with_views(row: dict[str, Any], view_columns: list[str]) -> dict[str, Any]:
    """A row with its views in columns of their own, keyed by the first that it has."""
    if not view_columns:
        return row
    views = row["image"] or (None,) * len(view_columns)
    first = next((view for view in views if view is not None), None)
    return {**row, "image": first, **dict(zip(view_columns, views, strict=True))}


def _narrative(narrator: Narrator, row: Mapping[str, Any]) -> Narrative:
    try:
        return narrator.narrate(row)
    except ValueError as error:
        raise ValueError(f"Row {row['id']!r}: {error}") from error


def _texts(rows: list[dict[str, Any]], narratives: list[Narrative]) -> dict[str, str]:
    """Image id -> narrative, sorted; a row without any text has no entry."""
    texts: dict[str, str] = {}
    for row, narrative in zip(rows, narratives, strict=True):
        if row["image"] is None or not narrative.text:
            continue
        if texts.setdefault(row["image"], narrative.text) != narrative.text:
            raise ValueError(
                f"The image {row['image']!r} has two rows with different texts; the report format holds one."
            )
    return dict(sorted(texts.items()))


def _check_output(output: Path, cases: CaseTable) -> None:
    """Refuse to write a table beside the one that was read: the folder would be another data set from then on."""
    for name in ("image.csv", "response.json"):
        if (output / name).exists() and not (output / "narrative.json").exists():
            raise ValueError(f"{output / name} exists and was not written by narrate; choose another --output.")
    if any((output / name).exists() for name in cases.source.split(", ")):
        raise ValueError(f"{output} holds the data set's own table {cases.source}; choose another --output.")
