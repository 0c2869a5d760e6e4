"""Narratives of a whole data set, written as the files that mmfusion reads (``dataset.format: report``)."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmfusion import registry
from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.read import read_cases
from mmfusion.files import sole_writer, write_json, written_table
from mmfusion.narrative.config import NarrateConfig, NarrativeConfig
from mmfusion.narrative.narrator import Narrative, Narrator
from mmfusion.text.guard import LeakGuard, list_synonyms, read_synonyms
from mmfusion.text.tokenizer import load_tokenizer


def build_narrator(config: NarrativeConfig, cases: CaseTable, dataset: DatasetConfig) -> Narrator:
    """The narrator that a configuration describes, guarded against the labels of the cases.

    Raises:
        ValueError: There is no template, it names a column that the cases do not have, or an option is invalid.
    """
    template = config.template if config.template is not None else dataset.text_template
    if template is None:
        example = "{age}-year-old {sex}, lesion on the {localization}"
        raise ValueError(f'narrate needs --narrative.template, e.g. "{example}".')
    source = config.synonyms or (config.knowledge if config.knowledge in list_synonyms() else None)
    synonyms = read_synonyms(source) if source is not None else {}
    leaking = [dataset.label_column, *(config.leaking_columns or ())]
    encodes = "encoder" in registry.keywords(registry.get("retriever", config.retriever))
    narrator = Narrator(
        template,
        config.retriever,
        config.top_k,
        knowledge=config.knowledge,
        guard=LeakGuard(sorted(set(cases.frame["label"].dropna())), synonyms, columns=leaking),
        on_leak=config.on_leak,
        weighting=config.weighting,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        tokenizer=load_tokenizer(config.tokenizer) if config.tokenizer is not None else None,
        missing_values=dataset.missing_values,
        retriever_args={"encoder": config.encoder} if encodes else None,
    )
    if unknown := ", ".join(repr(name) for name in narrator.fields if name not in cases.metadata):
        raise ValueError(f"The template names {unknown}; the metadata columns are {', '.join(cases.metadata)}.")
    return narrator


@dataclass(frozen=True)
class NarratedData:
    """The narratives of a data set.

    Attributes:
        output: Folder that they were written to.
        facts: Contents of ``narrative.json``: settings, words removed by the guard, number of uses of each passage.
        example: The first narrative.
    """

    output: Path
    facts: dict[str, Any]
    example: str

    def summary(self) -> str:
        """Words removed by the guard, rows without text, the first narrative, and how to read the output."""
        lines = []
        for place in ("passages", "rows"):
            if removed := self.facts[f"removed_from_{place}"]:
                if place == "passages":
                    removed = sorted({word for found in removed.values() for word in found})
                lines.append(f"leak guard: removed {', '.join(removed)} from {place}")
        if numbers := self.facts["unguarded_labels"]:
            fix = "name the words that give them away with --narrative.synonyms FILE.json"
            lines.append(f"leak guard: the labels {', '.join(numbers)} are numbers, which are not searched for; {fix}")
        if rows := len(self.facts["without_image"]):
            lines.append(f"no text for {rows:,} rows without an image: response.json is keyed by image")
        if rows := self.facts["without_text"]:
            lines.append(f"{rows:,} rows have neither metadata nor text")
        lines.append(f"first of {self.facts['rows']:,}: {self.example}")
        lines.append(f"read it with: --data {self.output} --dataset.image_root {self.facts['image_root']}")
        return "\n".join(lines)


@sole_writer
def narrate(config: NarrateConfig) -> NarratedData:
    """Write a narrative for each row: a sentence from metadata, and passages retrieved for it.

    The output has ``response.json``, image id -> narrative, sorted; ``image.csv`` with image id, label, group, split
    and the metadata that do not leak, so that studies and views can be read as before; and ``narrative.json``. The same
    data and settings give the same bytes. The images stay where they are: read the output with ``dataset.image_root``.

    Raises:
        FileNotFoundError: The data or a file named in the configuration do not exist.
        ValueError: Bad rows with ``on_bad_row: fail``, two texts for one image, or a bad configuration.
    """
    print(f"writing narratives for {config.data}")
    dataset, output = config.dataset, Path(config.output)
    # Row by row: the rows of a study are joined when the output is read.
    rowwise = replace(dataset, study_column=None, slice_column=None, max_slices=None, view_column=None, views=[])
    cases = read_cases(config.data, rowwise, require_labels=False).resolve(dataset.on_bad_row)
    _check_output(output, cases)
    narrator = build_narrator(config.narrative, cases, dataset)
    rows = [_with_views(row, dataset.view_columns) for row in cases.frame.to_dict("records")]
    narratives = [_narrative(narrator, row) for row in rows]
    facts = {
        "rows": len(rows),
        "without_text": sum(not narrative.text for narrative in narratives),
        "without_image": [row["id"] for row in rows if row["image"] is None],
        "settings": {**asdict(config.narrative), "template": narrator.template},
        "image_root": os.path.relpath(cases.image_root, output),
        "dropped_columns": narrator.dropped_columns,
        "unguarded_labels": narrator.guard.numbers,
        "removed_from_passages": narrator.removed,
        "removed_from_rows": dict(sorted(Counter(word for n in narratives for word in n.removed).items())),
        "passages": dict(sorted(Counter(p.id for n in narratives for p in n.passages if p.text).items())),
    }
    texts = _texts(rows, narratives)
    output.mkdir(parents=True, exist_ok=True)
    columns = _columns(cases, narrator, dataset)
    with written_table(output / "image.csv") as writer:
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns] for row in rows)
    for name, content in (("response.json", texts), ("narrative.json", facts)):
        write_json(output / name, content, indent=1)
    return NarratedData(output, facts, narratives[0].text)


def _columns(cases: CaseTable, narrator: Narrator, dataset: DatasetConfig) -> list[str]:
    """Columns of the written table: non-empty ones of the normal form, views, and metadata that do not leak."""
    frame = cases.frame
    names = [name for name in ("id", "label", "group", "split") if frame[name].notna().any()]
    names = [name for name in names if name != "id" or not frame["id"].equals(frame["image"])]
    renamed = (dataset.group_column, dataset.split_column, dataset.id_column, "image", *names)
    metadata = [name for name in cases.metadata if name not in renamed and not narrator.guard.leaking([name])]
    return ["image", *names, *dataset.view_columns, *metadata]


def _with_views(row: dict[str, Any], view_columns: list[str]) -> dict[str, Any]:
    """A row with one column per view; its first view is the image."""
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
            two = "two rows with different texts; the report format has one per image"
            raise ValueError(f"The image {row['image']!r} has {two}.")
    return dict(sorted(texts.items()))


def _check_output(output: Path, cases: CaseTable) -> None:
    """Raise ValueError for an output folder with another table, which would then be read differently."""
    for name in ("image.csv", "response.json"):
        if (output / name).exists() and not (output / "narrative.json").exists():
            raise ValueError(f"{output / name} exists and was not written by narrate; choose another --output.")
    if any((output / name).exists() for name in cases.source.split(", ")):
        raise ValueError(f"{output} contains the data set's own table {cases.source}; choose another --output.")
