"""``audit(config)``: all checks, in order."""

from dataclasses import replace

from PIL import Image

from mmfusion.auditing import gaps, images, leaks, partition
from mmfusion.auditing.audited_data import AuditedData, ImageFacts, look_at
from mmfusion.auditing.config import AuditConfig
from mmfusion.auditing.findings import Audit
from mmfusion.auditing.label_errors import check_label_errors
from mmfusion.data.cases import CaseTable
from mmfusion.data.image_checks import check_images
from mmfusion.data.read import read_cases
from mmfusion.files import sole_writer
from mmfusion.text.guard import list_synonyms, read_synonyms


@sole_writer
def audit(config: AuditConfig) -> Audit:
    """Look for leaks, duplicates, missing data and rare classes that invalidate metrics on a data set.

    ``docs/audit.md`` has the criterion of each finding. Rows that training would reject are reported and excluded from
    all other checks.

    Raises:
        FileNotFoundError: The data or the synonyms do not exist.
        ValueError: The data are not a table, no row is usable, or there are too few groups to draw a split.
    """
    synonyms = read_synonyms(config.synonyms) if config.synonyms is not None else {}
    print(f"auditing {config.data}")
    dataset = config.dataset if config.split == "auto" else config.dataset.without_split()
    cases = read_cases(config.data, dataset)
    facts: dict[str, ImageFacts] = {}

    def look(name: str, image: Image.Image) -> None:
        facts[name] = look_at(cases.image_root / name, image)

    cases = check_images(cases, look=look)
    rows = list(gaps.check_rows(cases))
    used, origin = _with_split(_without_bad_rows(cases), config)
    # the threads that inspect images finish in any order
    data = AuditedData(used, config.dataset, dict(sorted(facts.items())))
    evidence = leaks.judge_columns(data)
    known = {label: terms for field in list_synonyms() for label, terms in read_synonyms(field).items()}
    findings = [
        *rows,
        *partition.check_labels(data),
        *partition.check_groups(data),
        *partition.check_texts(data),
        *images.check_duplicates(data),
        *leaks.check_columns(data, evidence),
        *leaks.check_words(data, known | synonyms),
        *gaps.check_modalities(data),
        *partition.check_classes(data),
        *images.check_sizes(data),
        *(check_label_errors(data, config.label_errors, config.feature_cache) if config.label_errors else ()),
    ]
    columns = {
        name: {"removed": found.removed, "settled": found.settled, "input": name in data.inputs}
        for name, found in evidence.items()
    }
    outcome = Audit(
        source=cases.source,
        rows=len(cases),
        used=len(used),
        split=origin,
        fingerprint=used.fingerprint(),
        findings=findings,
        classes=partition.class_counts(data),
        missing=gaps.missing_shares(data),
        columns=columns,
        images=images.image_table(data),
        output=config.output,
    )
    if config.output is not None:
        outcome.write(config.output)
    return outcome


def _without_bad_rows(cases: CaseTable) -> CaseTable:
    used = replace(cases, frame=cases.frame[~cases.frame.index.isin(cases.bad_rows)], problems=[])
    if not len(used):
        raise ValueError(f"{cases.source}: no row is usable; the first problem: {cases.problems[0]}")
    return used


def _with_split(cases: CaseTable, config: AuditConfig) -> tuple[CaseTable, str]:
    """The cases with the split to check, and its origin: ``table``, ``drawn`` or ``random``."""
    if cases.splits:
        return cases, "table"
    if config.split != "random":
        return cases.split_or_draw(config.dataset, config.seed), "drawn"
    ungrouped = replace(cases, frame=cases.frame.assign(group=None)).split_or_draw(config.dataset, config.seed)
    return replace(cases, frame=cases.frame.assign(split=ungrouped.frame["split"])), "random"
