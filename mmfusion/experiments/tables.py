"""Results of an experiment as Markdown, CSV and a figure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.evaluation.plots import canvas, save
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import FEWEST_SEEDS, Estimate, RowResult, Verdict, benefit_names
from mmfusion.files import write_frame, write_text
from mmfusion.markdown import table
from mmfusion.results import HEADLINE

#: Metrics in the Markdown table, besides user-defined ones; the CSV has all.
SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll", "ece")
COLOURS: dict[Verdict, str] = {
    "better": "#1b7f3b",
    "worse": "#b3261e",
    "no detectable difference": "#5f6368",
    "not judged: fewer than 3 seeds": "#b0b4b9",
}
#: Columns of a model's cost: heading, scale and format.
COSTS = {
    "parameters": ("parameters", 1e-6, "{:.2f} M"),
    "trained_parameters": ("trained", 1e-6, "{:.3f} M"),
    "gflops": ("GFLOP / case", 1.0, "{:.3f}"),
    "ms": ("ms / case", 1.0, "{:.1f}"),
    "seconds": ("training s", 1.0, "{:.0f}"),
}


def write_results(
    experiment: ExperimentConfig,
    results: Sequence[RowResult],
    folder: Path,
    sites: Mapping[str, Sequence[RowResult]] = MappingProxyType({}),
) -> str:
    """Write ``results.md`` (and return its text), ``results.csv``, ``runs.csv`` and ``differences.png``.

    For finished runs there is no ``runs.csv``, which would repeat ``results.csv``.

    Args:
        experiment: Metric and confidence level.
        results: The rows, the base first.
        folder: Output folder.
        sites: Each part left out of the training -> the results on it.
    """
    text = (finished_markdown if experiment.runs else markdown)(experiment, results)
    text += sites_markdown(experiment, sites) if sites else ""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.md", text)
    write_frame(folder / "results.csv", pd.DataFrame(list(_lines(results, sites))))
    if not experiment.runs:
        write_frame(folder / "runs.csv", pd.DataFrame(list(_runs(results))))
    plot_differences(experiment, results, folder / "differences.png")
    return text


def markdown(experiment: ExperimentConfig, results: Sequence[RowResult]) -> str:
    """The tables and sentences of an experiment."""
    base, title = results[0], EVERY_METRIC[str(experiment.metric)].title
    seeds = ", ".join(map(str, experiment.seeds))
    grouped = "" if base.groups == base.cases else f" of {base.groups:,} groups"
    known = [name for name in base.figures if name in SHOWN or name not in HEADLINE]
    shown = list(dict.fromkeys((str(experiment.metric), *sorted(known, key=_place))))
    head = ["row", *(EVERY_METRIC[name].title for name in shown), *(heading for heading, _, _ in COSTS.values())]
    lines = [
        f"# {Path(experiment.output).name}",
        "",
        f"{base.cases:,} test rows{grouped}; seeds {seeds}. Mean over the seeds ± their standard deviation.",
        "",
        table(head, [[_name(row), *(_cell(row.figures.get(name)) for name in shown), *_costs(row)] for row in results]),
    ]
    lines += ["", f"## {title[0].upper()}{title[1:]} vs. {base.row.name}", ""]
    lines += [f"- {sentence(experiment, row, base.row.name)}" for row in results]
    if experiment.alarm:
        lines += ["", f"## Net benefit of acting on {', '.join(experiment.alarm)}, per 1,000 cases", ""]
        head = ["row", *(f"from {t:g}" for t in experiment.benefit_thresholds)]
        lines.append(table(head, list(_benefits(experiment, results))))
    compared = [row for row in results[1:] if row.figures]
    if len(compared) > 1:
        each = f"{len(compared)} rows are compared at the level {experiment.level:.0%} each"
        lines += ["", f"{each}: with several comparisons, some intervals miss the true value by chance."]
    if len(experiment.seeds) < FEWEST_SEEDS:
        few = "One seed shows nothing" if len(experiment.seeds) == 1 else "Two seeds show little"
        lines += ["", f"{few} about the variation between seeds."]
    return "\n".join(lines) + "\n"


def sites_markdown(experiment: ExperimentConfig, sites: Mapping[str, Sequence[RowResult]]) -> str:
    """A line per left-out part and row: its metric on that part when trained on the others."""
    name, percent = str(experiment.metric), f"{experiment.level:.0%}"
    lines = []
    for site, results in sites.items():
        for row in results:
            about = [site, f"{row.cases:,}", _name(row)]
            if not row.figures:
                lines.append([*about, "failed", "", ""])
                continue
            figure = row.figures[name]
            change = ""
            if figure.difference is not None:
                change = f"{figure.difference:+.3f} ({figure.difference_low:+.3f} to {figure.difference_high:+.3f})"
            lines.append([*about, _cell(figure), f"{figure.low:.3f} to {figure.high:.3f}", change])
    head = [str(experiment.leave_out), "test rows", "row", EVERY_METRIC[name].title, f"{percent} interval"]
    title = f"## {experiment.leave_out} left out of training"
    return "\n".join(["", title, "", table([*head, f"vs. {next(iter(sites.values()))[0].row.name}"], lines)]) + "\n"


def finished_markdown(experiment: ExperimentConfig, results: Sequence[RowResult]) -> str:
    """The tables and sentences of finished runs, paired by row."""
    base, *others = results
    grouped = base.groups != base.cases
    drawn = f"whole groups ({base.groups:,})" if grouped else "rows, which have no groups"
    lines = [
        f"# {Path(experiment.output).name}",
        "",
        f"The same {base.cases:,} rows, evaluated by each run. Intervals ({experiment.level:.0%}) are from "
        f"{experiment.replicates:,} resamples of {drawn}, the same for each run.",
    ]
    for row in others:
        head = ["figure", base.row.name, row.row.name, "difference", f"{experiment.level:.0%} interval", ""]
        pairs = [(name, base.figures[name], row.figures[name]) for name in base.figures]
        lines += ["", f"## {row.row.name} vs. {base.row.name}", "", table(head, [_paired(*pair) for pair in pairs])]
    if len(others) > 1:
        lines += ["", f"{len(others)} runs are compared: some intervals miss the true value by chance."]
    lines += [
        "",
        "This compares these models on such rows, not their training procedures: other seeds may differ.",
    ]
    return "\n".join(lines) + "\n"


def _benefits(experiment: ExperimentConfig, results: Sequence[RowResult]) -> Iterator[list[str]]:
    """Net benefit per row at each threshold, and its difference from the base's with the interval."""
    for row in filter(lambda row: row.figures, results):
        cells = []
        for name in benefit_names(experiment):
            own = row.figures[name]
            numbers = (own.difference, own.difference_low, own.difference_high)
            change = [f"{1000 * number:+.0f}" for number in numbers if number is not None]
            cells.append(f"{1000 * own.mean:.0f}" + (f" ({change[0]}; {change[1]} to {change[2]})" if change else ""))
        yield [_name(row), *cells]


def _paired(name: str, base: Estimate, own: Estimate) -> list[str]:
    title = EVERY_METRIC[name].title if name in EVERY_METRIC else name
    told = [title, *(f"{figure.mean:.3f}" for figure in (base, own))]
    if own.difference is None or own.difference != own.difference:
        return [*told, "undefined", "", ""]
    return [
        *told,
        f"{own.difference:+.3f}",
        f"{own.difference_low:+.3f} to {own.difference_high:+.3f}",
        f"{own.verdict}",
    ]


def sentence(experiment: ExperimentConfig, row: RowResult, base: str) -> str:
    """The result of a row in words."""
    failed = {str(run["error"]) for run in row.runs.values() if "error" in run}
    count = len(experiment.seeds) - len(row.seeds)
    some = f" ({count} seed{'s' * (count > 1)} failed: {'; '.join(sorted(failed))})" if failed else ""
    if not row.figures:
        return f"**{row.row.name}**: every run failed{some}."
    figure, percent = row.figures[str(experiment.metric)], f"{experiment.level:.0%}"
    told = f"**{row.row.name}**: {figure.mean:.3f}, {percent} interval {figure.low:.3f} to {figure.high:.3f}"
    if figure.difference is None:
        return f"{told}{some}."
    assert figure.difference_low is not None and figure.difference_high is not None
    return (
        f"{told}; {figure.difference:+.3f} ({figure.difference_low:+.3f} to {figure.difference_high:+.3f}) "
        f"vs. {base}: {figure.verdict}{some}."
    )


def plot_differences(experiment: ExperimentConfig, results: Sequence[RowResult], path: Path) -> None:
    """Plot each row's difference from the base with its interval; empty if every other row failed.

    Args:
        experiment: Metric and confidence level.
        results: The rows, the base first.
        path: PNG file to write.
    """
    rows = [row for row in results[1:] if row.figures]
    if not rows:
        return
    figure, axes = canvas(7.5, 1.3 + 0.36 * len(rows))
    for i, row in enumerate(rows):
        found = row.figures[str(experiment.metric)]
        if found.verdict is not None:
            ends, colour = [found.difference_low, found.difference_high], COLOURS[found.verdict]
            axes.plot(ends, [i, i], color=colour, linewidth=2)
            axes.plot([found.difference], [i], "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    metric = EVERY_METRIC[str(experiment.metric)]
    side = "higher is better" if metric.higher_is_better else "lower is better"
    axes.set_xlabel(f"difference in {metric.title} from {results[0].row.name}, {experiment.level:.0%} CI ({side})")
    axes.grid(axis="x", alpha=0.3)
    save(figure, path)


def _place(name: str) -> int:
    """Position of a metric in the table; user-defined ones come last."""
    return SHOWN.index(name) if name in SHOWN else len(SHOWN)


def _name(row: RowResult) -> str:
    return f"**{row.row.name}** (base)" if row.row.kind == "base" else row.row.name


def _cell(figure: Estimate | None) -> str:
    if figure is None:
        return "failed"
    return f"{figure.mean:.3f}" + ("" if figure.spread is None else f" ± {figure.spread:.3f}")


def _mean_cost(row: RowResult) -> dict[str, float]:
    """Known costs of the model, measured in the row's first run, and the mean training time."""
    known = {name: [run[name] for run in row.runs.values() if "error" not in run and name in run] for name in COSTS}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def _costs(row: RowResult) -> list[str]:
    cost = _mean_cost(row)
    return [text.format(scale * cost[name]) if name in cost else "" for name, (_, scale, text) in COSTS.items()]


def _lines(results: Sequence[RowResult], sites: Mapping[str, Sequence[RowResult]]) -> Iterator[dict[str, Any]]:
    """One flat record per row and metric, over all test rows and each left-out part."""
    names = dict.fromkeys(name for row in results for name in row.figures)
    for site, rows in [(None, results), *sites.items()]:
        for row, name in product(rows, names):
            about = {"row": row.row.name, "kind": row.row.kind, "metric": name, "seeds": len(row.seeds)}
            left_out = {"left_out": site} if sites else {}
            yield {**about, **left_out, **(vars(row.figures[name]) if name in row.figures else {}), **_mean_cost(row)}


def _runs(results: Sequence[RowResult]) -> Iterator[dict[str, Any]]:
    for row in results:
        for (seed, fold), run in row.runs.items():
            flat = {name: value for name, value in run.items() if name != "figures"}
            yield {"row": row.row.name, "seed": seed, "fold": fold, **run.get("figures", {}), **flat}
