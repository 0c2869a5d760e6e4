"""Explanations as figures and files, without pyplot's global state."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmfusion.explanation.explanation import Explanation
from mmfusion.files import write_figure, write_json
from mmfusion.inference.shares import MOST_VALUES

#: panels in a row.
_COLUMNS = 4
#: maximum number of table columns in the chart of contributions.
_MOST_COLUMNS = 12
#: a heat map with fewer cells on its longer side shows no place.
_COARSE = 4
#: width of a monospaced character of 9 points, in inches.
_CHARACTER = 0.0753

#: (left, top, right, bottom) in pixels of a picture.
Box = tuple[float, float, float, float]


def save_explanation(explanation: Explanation, path: str | Path) -> tuple[Path, Path]:
    """Write ``path.png``, the figure of :func:`draw`, and ``path.json``, the numbers; create the folder if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture, numbers = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.json")
    write_figure(picture, draw(explanation), dpi=110)
    write_json(numbers, to_plain(explanation), indent=1)
    return picture, numbers


def to_plain(explanation: Explanation) -> dict[str, Any]:
    """Contents of the JSON file: everything except pictures and enlarged maps."""
    left_out = ("pictures", "heat_map", "heat_maps")
    plain = {name: _plain(value) for name, value in explanation.items() if name not in left_out}
    if explanation.contributions is not None:
        plain["contributions"] = _plain(asdict(explanation.contributions))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def coarse_cells(explanation: Explanation) -> str:
    """``2 x 2``, the cells of a heat map too coarse to show a place (under four on each side); else empty."""
    shapes = [values.shape for values in (explanation.relevance or {}).values()]
    return " x ".join(map(str, shapes[0])) if shapes and max(shapes[0]) < _COARSE else ""


def draw(explanation: Explanation, title: str | None = None) -> Figure:
    """The image with its heat map, attention maps, words, and bars of classes, contributions, gates and experts.

    The default title names the predicted and the explained class.
    """
    e = explanation
    panels, bars = _panels(e), _bars(e)
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = -(-len(panels) // columns)
    panel = 3.2 if columns <= 2 else 2.5
    left, right = max(panel * columns, 5.0), 3.4
    characters = int(left / _CHARACTER)
    lines = _text_lines(e.words, characters)
    # In inches: the pictures with the words below them, and the charts to their right.
    tallest = max((picture.shape[0] / picture.shape[1] for _, picture, _, _ in panels), default=0.0)
    heights = [rows * (panel * tallest + 0.35), 0.3 * (len(lines) + 1) + 0.1 if lines else 0.1]
    charts = [0.24 * len(values) + 0.55 for _, values in bars]
    height = max(sum(heights), sum(charts))
    figure = Figure(figsize=(left + right + 0.9, height + 0.7))
    margins = {"left": 0.02, "right": 0.97, "bottom": 0.02, "top": height / (height + 0.7)}
    grid = figure.add_gridspec(1, 2, width_ratios=(left, right), wspace=1.8 / (left + right), **margins)
    side = grid[0].subgridspec(3, 1, height_ratios=[*heights, max(height - sum(heights), 0.01)], hspace=0)
    if panels:
        pictures = side[0].subgridspec(rows, columns, hspace=0.14, wspace=0.04)
        for position, panel_of in enumerate(panels):
            _draw_picture(figure.add_subplot(pictures[divmod(position, columns)]), *panel_of)
    if lines:
        _draw_words(figure.add_subplot(side[1]), lines, characters, about=e.explained)
    spare = max(height - sum(charts), 0.01)
    stack = grid[1].subgridspec(len(bars) + 1, 1, height_ratios=[*charts, spare], hspace=0)
    for position, (name, values) in enumerate(bars):
        # The title takes the top half inch of the chart.
        strip = stack[position].subgridspec(2, 1, height_ratios=(0.24 * len(values), 0.55), hspace=0)
        _draw_bars(figure.add_subplot(strip[0]), name, values, chosen=e.explained)
    numbers = ", ".join(f"{name} {found['value']:.3g}" for name, found in (e.numbers or {}).items())
    about = numbers or f"{e.label} ({e.probability:.2f})"
    about += f", explained: {e.explained}" if e.explained != e.label else ""
    figure.suptitle(title or about, y=1 - 0.2 / (height + 0.7))
    return figure


def _panels(e: Explanation) -> list[tuple[str, NDArray[Any], NDArray[Any] | None, Box]]:
    """Title, picture, heat map and its box for each panel; the title says if a map is empty or coarse."""
    panels: list[tuple[str, NDArray[Any], NDArray[Any] | None, Box]] = []
    pictures, heat_maps, boxes = e.pictures or {}, e.heat_maps or {}, e.boxes or {}
    for name, picture in pictures.items():
        found = "evidence" if heat_maps[name].any() else f"no evidence for {e.explained}"
        cells = coarse_cells(e)
        found += f" ({cells} cells)" if cells else ""
        maps: dict[str, Any] = {f"{found}, {name}" if len(pictures) > 1 else found: heat_maps[name]}
        maps = maps if len(pictures) > 1 else {name: None, **maps}
        maps |= {key.replace("_", " "): value / value.max() for key, value in (e.attention or {}).items()}
        panels += [(title, picture, heat, boxes[name]) for title, heat in maps.items()]
    return panels


def _bars(e: Explanation) -> list[tuple[str, list[tuple[str, float]]]]:
    """Charts of (name, value) pairs, by title."""
    bars = [("probability", list(e.probabilities.items()))] if e.probabilities else []
    if e.contributions is not None:
        bars.append(("contribution (Shapley)", list(e.contributions.shapley.items())))
    if e.columns:
        strongest = sorted(e.columns, key=lambda column: -abs(column[1]))[:_MOST_COLUMNS]
        of = f", {_MOST_COLUMNS} of {len(e.columns)}" if len(e.columns) > _MOST_COLUMNS else ""
        bars.append((f"columns (Shapley{of})", [column for column in e.columns if column in strongest]))
    gates: list[tuple[str, float]] = []
    for name, gate in (e.gates or {}).items():
        values = gate.ravel().tolist()
        if len(values) > MOST_VALUES:
            gates.append((f"{name} (mean)", float(gate.mean())))
        else:
            gates += [(f"{name} {i}" if len(values) > 1 else name, value) for i, value in enumerate(values, start=1)]
    if gates:
        bars.append(("gates", gates))
    if e.experts is not None:
        bars.append(("experts", [(f"expert {i + 1}", float(p)) for i, p in enumerate(e.experts)]))
    return bars


def _draw_picture(axes: Axes, name: str, picture: NDArray[Any], heat: NDArray[Any] | None, box: Box) -> None:
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(0, width, height, 0))
    if heat is not None:
        left, top, right, bottom = box
        place: dict[str, Any] = {"extent": (left, right, bottom, top), "interpolation": "bilinear"}
        # Transparent where there is no evidence for the class, so that the image stays visible.
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.clip(heat, 0, 1), **place)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_anchor("N")
    axes.set_title(name, fontsize=9)


def _draw_bars(axes: Axes, title: str, values: list[tuple[str, float]], chosen: str | None) -> None:
    names, numbers = zip(*values, strict=True)
    colours = ["tab:orange" if name == chosen else "tab:blue" if value >= 0 else "tab:red" for name, value in values]
    axes.barh(range(len(values)), numbers, color=colours, height=0.7)
    axes.set_yticks(range(len(values)), names, fontsize=8)
    axes.invert_yaxis()
    # Fixed scale for shares and probabilities, and a minimum range of 0.1 for contributions, so that small values look
    # small.
    low, high = min(0.0, *numbers), max(1.0 if min(numbers) >= 0 else 0.1, *numbers)
    span = high - low
    axes.set_xlim(low - 0.2 * span * (low < 0), high + 0.2 * span)
    for i, value in enumerate(numbers):
        axes.text(value, i, f" {value:.2f} ", va="center", ha="left" if value >= 0 else "right", fontsize=7)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, fontsize=9, loc="left")


def _text_lines(words: list[tuple[str, float]] | None, width: int) -> list[list[tuple[str, float, int]]]:
    """Lines of words: (word, relevance relative to the largest, column)."""
    if not words:
        return []
    strongest = max(abs(value) for _, value in words) or 1.0
    lines: list[list[tuple[str, float, int]]] = [[]]
    column = 0
    for word, value in words:
        word = textwrap.shorten(word, width, placeholder="...")
        if column and column + len(word) > width:
            lines.append([])
            column = 0
        lines[-1].append((word, value / strongest, column))
        column += len(word) + 1
    return lines


def _draw_words(axes: Axes, lines: list[list[tuple[str, float, int]]], width: int, about: str | None) -> None:
    """Draw words on red (for the class) or blue (against it), below a legend."""
    axes.set(xlim=(0, width), ylim=(len(lines) + 1, 0))
    axes.axis("off")
    # Scaled to the strongest word, even if its effect is small; the contribution shows the effect of the whole text.
    axes.text(0, 0.5, f"words: red for {about}, blue against it", fontsize=9, va="center")
    style: dict[str, Any] = {"family": "monospace", "fontsize": 9, "va": "center"}
    for row, line in enumerate(lines, start=1):
        for word, value, column in line:
            colour = colormaps["bwr"](0.5 + 0.4 * value)
            axes.text(column, row + 0.5, word, bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.0}, **style)
