"""``audit(...)``: everything that is checked, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from mmfusion.auditing import gaps, images, leaks, partition
from mmfusion.auditing.findings import Audit, Finding
from mmfusion.auditing.subject import Subject
from mmfusion.data.config import DatasetConfig
from mmfusion.data.table import CaseTable, check_images, read_cases
from mmfusion.text.guard import list_synonyms, read_synonyms

#: what split to look at.
SPLITS = ("auto", "drawn", "random")


def audit(
    data: str | Path,
    dataset: DatasetConfig | None = None,
    *,
    split: str = "auto",
    seed: int = 0,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    progress: bool = True,
) -> Audit:
    """Look for what would make figures measured on a data set untrue. ``docs/audit.md`` says how each is decided.

    Rows that training would refuse are told, and left out of everything else.

    Args:
        data: root folder of the data set, or its table.
        dataset: how to read it.
        split: ``auto`` looks at the split of the data, or, where they have none, at the one that a run would draw;
            ``drawn`` at the latter in any case; ``random`` at rows split at random, to show what goes wrong.
        seed: of a drawn split, as ``seed`` of a run.
        synonyms: label -> further words that give it away, beside those that mmfusion knows for labels of that name
            (``mel``: melanoma).
        progress: show a progress bar while the images are read.

    Raises:
        FileNotFoundError: the data do not exist.
        ValueError: they cannot be read as a table, no row is usable, too few groups to draw a split, or an unknown
            ``split``.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r} to audit; it is one of {', '.join(SPLITS)}.")
    dataset = dataset or DatasetConfig()
    cases = read_cases(data, dataset if split == "auto" else dataset.without_split())
    facts: dict[str, images.ImageFacts] = {}

    def look(name: str, image: Image.Image) -> None:
        facts[name] = images.look_at(cases.image_root / name, image)

    check_images(cases, progress=progress, look=look)
    findings: list[Finding] = list(gaps.check_rows(cases))
    used = _without_bad_rows(cases)
    if not len(used):
        raise ValueError(f"{cases.source}: no row is usable; the first problem: {cases.problems[0]}")
    origin = "table" if used.splits else "random" if split == "random" else "drawn"
    if origin == "random":
        drawn = replace(used, frame=used.frame.assign(group=None)).split_or_draw(dataset, seed)
        used = replace(used, frame=used.frame.assign(split=drawn.frame["split"]))
    else:
        used = used.split_or_draw(dataset, seed)
    subject = Subject(used, dataset, facts)
    evidence = leaks.judge_columns(subject)
    findings += [
        *partition.check_groups(subject),
        *images.check_duplicates(subject),
        *leaks.check_columns(subject, evidence),
        *leaks.check_words(subject, _known_synonyms() | dict(synonyms or {})),
        *gaps.check_modalities(subject),
        *partition.check_classes(subject),
        *images.check_sizes(subject),
    ]
    return Audit(
        source=cases.source,
        rows=len(cases),
        used=len(used),
        split=origin,
        fingerprint=used.fingerprint(),
        findings=findings,
        classes=partition.class_counts(subject),
        missing=gaps.missing_shares(subject),
        columns={
            name: {"removed": found.removed, "settled": found.settled, "input": name in subject.inputs}
            for name, found in evidence.items()
        },
        images=images.image_table(subject),
    )


def _without_bad_rows(cases: CaseTable) -> CaseTable:
    bad = {problem.row for problem in cases.problems if not problem.warning and problem.part_of is None}
    return replace(cases, frame=cases.frame[~cases.frame.index.isin(bad)], problems=[])


def _known_synonyms() -> dict[str, Sequence[str]]:
    return {label: terms for field in list_synonyms() for label, terms in read_synonyms(field).items()}
