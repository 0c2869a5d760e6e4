"""``split(config)``: draw a split of a data set, whatever split it has, and keep it in a file."""

from dataclasses import dataclass, replace
from pathlib import Path

from mmfusion.data.cases import CaseTable
from mmfusion.data.config import SplitConfig
from mmfusion.data.read import read_cases
from mmfusion.data.split_file import write_split_table
from mmfusion.data.splits import group_folds
from mmfusion.files import sole_writer


@dataclass(frozen=True)
class DrawnSplit:
    """A split that was drawn and written.

    Attributes:
        config: How it was drawn.
        cases: The cases, with the column ``split``, or ``fold``.
    """

    config: SplitConfig
    cases: CaseTable

    def summary(self) -> str:
        """How many rows of each class each split or fold has, and how to use the file."""
        config, frame = self.config, self.cases.frame
        column = "split" if config.folds is None else "fold"
        groups = frame["group"].nunique()
        by = f"{groups:,} groups stay whole" if groups else "no group column: each row is by itself"
        lines = [f"split {len(frame):,} rows of {config.data}; {by}"]
        for name in list(self.cases.splits) or sorted(set(frame[column])):
            rows = frame[frame[column] == name]
            counts = rows["label"].value_counts().sort_index()
            classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
            lines.append(f"  {column} {name}: {len(rows):,} rows ({classes})")
            if absent := sorted({*frame["label"].dropna()} - {*counts.index}):
                how = "merge classes (dataset.label_map), or deal folds (--folds) and pool them"
                lines.append(f"  WARNING: {column} {name} has no row of {', '.join(absent)}: too few groups; {how}")
        how = f"--dataset.split_table {config.output}"
        if config.folds is not None:
            how += " --dataset.fold_column fold --dataset.folds '{test: [0], val: [1]}'"
        return "\n".join([*lines, f"{config.output} written; use it with {how}"])


@sole_writer
def split(config: SplitConfig) -> DrawnSplit:
    """Split a data set by patient or lesion, stratified by class, and keep the split in a file.

    The file has the columns ``id``, ``split`` (or ``fold``) and ``fingerprint``.

    Raises:
        FileExistsError: There is such a file; a split that results were measured on is not written over.
        ValueError: Bad rows with ``on_bad_row: fail``, or fewer groups than splits or folds.
    """
    output = Path(config.output)
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another --output, or remove it if no result depends on it.")
    dataset = config.dataset.without_split()
    cases = read_cases(config.data, dataset).check_labels(dataset).resolve(dataset.on_bad_row)
    if config.folds is None:
        cases = cases.split_or_draw(dataset, config.seed)
    else:
        labels, groups = cases.strata(), cases.frame["group"].tolist()
        dealt = group_folds(labels, groups, folds=config.folds, seed=config.seed)
        cases = replace(cases, frame=cases.frame.assign(fold=dealt))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_split_table(cases, output, "split" if config.folds is None else "fold")
    return DrawnSplit(config, cases)
