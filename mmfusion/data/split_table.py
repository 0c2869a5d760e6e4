"""``split(config)``: draw a split of a data set, ignoring any existing one, and write it to a file."""

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
    """Result of ``mmfusion split``.

    Attributes:
        config: Options used.
        cases: The cases, with the column ``split``, or ``fold``.
    """

    config: SplitConfig
    cases: CaseTable

    def summary(self) -> str:
        """Rows per class in each split or fold, and how to use the file."""
        config, frame = self.config, self.cases.frame
        column = "split" if config.folds is None else "fold"
        groups = frame["group"].nunique()
        by = f"{groups:,} groups, none divided" if groups else "no group column: each row is its own group"
        lines = [f"split {len(frame):,} rows of {config.data}; {by}"]
        for name in list(self.cases.splits) or sorted(set(frame[column])):
            rows = frame[frame[column] == name]
            counts = rows["label"].value_counts().sort_index()
            classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
            lines.append(f"  {column} {name}: {len(rows):,} rows ({classes})")
            if absent := sorted({*frame["label"].dropna()} - {*counts.index}):
                how = "merge classes (dataset.label_map), or use folds (--folds) and pool them"
                lines.append(f"  WARNING: {column} {name} has no row of {', '.join(absent)}: too few groups; {how}")
        how = f"--dataset.split_table {config.output}"
        if config.folds is not None:
            how += " --dataset.fold_column fold --dataset.folds '{test: [0], val: [1]}'"
        return "\n".join([*lines, f"{config.output} written; use it with {how}"])


@sole_writer
def split(config: SplitConfig) -> DrawnSplit:
    """Split a data set by patient or lesion, stratified by class, and write the split to a file.

    The file has the columns ``id``, ``split`` (or ``fold``) and ``fingerprint``.

    Raises:
        FileExistsError: The file exists; a split that results were measured on is not overwritten.
        ValueError: Bad rows with ``on_bad_row: fail``, or fewer groups than splits or folds.
    """
    output = Path(config.output)
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another --output, or delete it if no result depends on it.")
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
