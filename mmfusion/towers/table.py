"""Towers for table columns: numbers and categories of a case, any of them missing."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.layers import CategoryEmbeddings, CrossAttention, NumericEmbeddings
from mmfusion.layers.attention import check_heads
from mmfusion.layers.columns import RESERVED, Embedding
from mmfusion.registry import register
from mmfusion.towers.base import Tower, numbered


class TableTower(Tower):
    """Base of towers for table columns, with one vector per column.

    Missing cells and values not seen in training have learned vectors per column; nothing is imputed. A row without any
    known cell lacks the modality. Numbers are standardized with buffers that :meth:`set_statistics` sets from the
    training rows and that are saved with the weights.

    Args:
        numeric: Number of numeric columns C.
        categories: Number of values seen in training, for each of the K categorical columns.
        bins: Number of bin edges of each numeric column; None means none.
        embedding: Embedding of numbers: ``piecewise_linear``, ``linear`` or ``periodic``; see
            :class:`~mmfusion.layers.NumericEmbeddings`.
        width: Width of a column's vector.
        cell_dropout: Probability that a training cell is hidden, in [0, 1). It trains the vectors of missing cells and
            unseen values even if the training rows have none.

    Raises:
        ValueError: There is no column, or a value is out of range.
    """

    modality = "table"
    side = "clinical"
    skips_absent = False
    from_scratch = True

    def __init__(
        self,
        numeric: int,
        categories: Sequence[int],
        bins: Sequence[int] | None,
        embedding: Embedding,
        width: int,
        cell_dropout: float,
    ) -> None:
        super().__init__()
        if numeric < 0 or any(count < 0 for count in categories):
            raise ValueError(f"numeric={numeric} and categories={list(categories)} count columns and values.")
        if not numeric and not categories:
            raise ValueError(
                "A table tower needs columns; give table_args={'numeric': number of numeric columns, 'categories': "
                "[number of values, for each categorical column]}."
            )
        if not 0 <= cell_dropout < 1:
            raise ValueError(f"cell_dropout={cell_dropout} is not in [0, 1).")
        self.num_columns = numeric + len(categories)
        self.cell_dropout = cell_dropout
        self.numeric = NumericEmbeddings(numeric, width, embedding, bins) if numeric else None
        self.categories = CategoryEmbeddings(categories, width) if categories else None
        given = {"numeric_values": self.numeric, "category_ids": self.categories}
        self.inputs = tuple(name for name, part in given.items() if part is not None)

    def set_statistics(self, mean: Tensor, scale: Tensor, edges: Sequence[Tensor] = ()) -> None:
        """Set mean and scale (C,) of the numeric columns, and their bin edges, all in the user's units.

        Raises:
            ValueError: They do not match the columns; see :meth:`mmfusion.layers.NumericEmbeddings.set_statistics`.
        """
        if self.numeric is not None:
            self.numeric.set_statistics(mean, scale, edges)

    def select(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The tower's inputs; empty if none of them is given.

        Raises:
            ValueError: One of two inputs is missing.
        """
        given = {name: inputs[name] for name in self.inputs if inputs.get(name) is not None}
        if given and len(given) < len(self.inputs):
            raise ValueError(f"The table tower reads {' and '.join(self.inputs)}, but got {next(iter(given))} alone.")
        return given

    def present(self, inputs: Mapping[str, Any]) -> Tensor:
        """(B,) bool, True for rows with a known cell for which ``table_present``, if given, is True."""
        found = known_cells({name: inputs[name] for name in self.inputs}).any(dim=1)
        flag: Tensor | None = inputs.get("table_present")
        return found if flag is None else found & flag.bool()

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random cells, some of them missing; samples without the modality have no known cell."""
        rows, found = len(present), {}
        if self.numeric is not None:
            shape = (rows, len(self.numeric.missing))
            values = torch.randn(shape, generator=generator).double() * self.numeric.standardize.scale.cpu()
            values = (values + self.numeric.standardize.mean.cpu()).float()
            hidden = (torch.rand(shape, generator=generator) < 0.2) | ~present[:, None]
            found["numeric_values"] = values.masked_fill(hidden, torch.nan)
        if self.categories is not None:
            sizes = torch.tensor(self.categories.sizes)
            ids = (torch.rand((rows, len(sizes)), generator=generator) * sizes).long()
            found["category_ids"] = ids.masked_fill(~present[:, None], 0)
        return found

    def columns(self, numeric_values: Tensor | None, category_ids: Tensor | None) -> Tensor:
        """Numbers (B, C) and ids (B, K) -> the columns' vectors (B, C + K, width), numeric ones first.

        Raises:
            ValueError: Another number of columns, or an id that its column does not have.
        """
        found = []
        if self.numeric is not None:
            values = _checked("numeric_values", numeric_values, len(self.numeric.missing))
            if self.training and self.cell_dropout:
                hidden = torch.rand(values.shape, device=values.device) < self.cell_dropout
                values = values.masked_fill(hidden, torch.nan)
            found.append(self.numeric(values))
        if self.categories is not None:
            ids = _checked("category_ids", category_ids, len(self.categories.sizes))
            if not torch.compiler.is_compiling() and ids.device.type != "meta":
                self.categories.check(ids)
            if self.training and self.cell_dropout:
                # half of the hidden cells become missing, the other half values not seen in training
                drawn = torch.rand(ids.shape, device=ids.device) / self.cell_dropout
                ids = torch.where((drawn < 1) & (ids >= RESERVED), (drawn < 0.5).long(), ids)
            found.append(self.categories(ids))
        return torch.cat(found, dim=1)


def known_cells(inputs: Mapping[str, Any]) -> Tensor:
    """(B, C + K) bool, True for known cells of the given columns."""
    cells = [~inputs["numeric_values"].isnan()] if inputs.get("numeric_values") is not None else []
    cells += [inputs["category_ids"] != 0] if inputs.get("category_ids") is not None else []
    return torch.cat(cells, dim=1)


def _checked(name: str, value: Tensor | None, columns: int) -> Tensor:
    if value is None or value.ndim != 2 or value.shape[1] != columns:
        got = "None" if value is None else tuple(value.shape)
        raise ValueError(f"{name} must be (B, {columns}), one number per column; got {got}.")
    return value


def level_indices(num_layers: int, num_levels: int) -> tuple[int, ...]:
    """Equally spaced layers, counted from 1, whose outputs are the levels; some repeat if there are fewer layers."""
    return tuple(max(1, round((i + 1) * num_layers / num_levels)) for i in range(num_levels))


@register("table_tower", "table_mlp")
class TableMlp(TableTower):
    """MLP over the concatenated column embeddings; the pooled vector is the only token.

    Each layer is linear - ReLU - dropout; the last is followed by a layer norm.

    Args:
        numeric: Number of numeric columns.
        categories: Number of values seen in training, for each categorical column.
        bins: Number of bin edges of each numeric column; None means none.
        embedding: Embedding of numbers: ``piecewise_linear``, ``linear`` or ``periodic``.
        dim: Width of the layers, and of the output.
        num_layers: Number of layers, at least 1.
        column_dim: Width of a column's vector.
        dropout: Dropout within each layer.
        cell_dropout: Probability that a training cell is hidden.
        num_levels: Number of levels to return, the outputs of equally spaced layers; some repeat if there are fewer
            layers.
    """

    def __init__(
        self,
        numeric: int = 0,
        categories: Sequence[int] = (),
        bins: Sequence[int] | None = None,
        embedding: Embedding = "piecewise_linear",
        dim: int = 128,
        num_layers: int = 2,
        column_dim: int = 16,
        dropout: float = 0.1,
        cell_dropout: float = 0.05,
        num_levels: int = 0,
    ) -> None:
        super().__init__(numeric, categories, bins, embedding, column_dim, cell_dropout)
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} is less than 1.")
        widths = [self.num_columns * column_dim, *[dim] * num_layers]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths)
        )
        self.norm = nn.LayerNorm(dim)
        self.num_features = dim
        self.level_indices = level_indices(num_layers, num_levels)
        self.level_dims = [dim] * num_levels

    def encode(self, numeric_values: Tensor | None = None, category_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Numbers (B, C) and ids (B, K) -> ``tokens`` (B, 1, dim), ``pooled`` (B, dim), and levels except the last."""
        outputs = [self.columns(numeric_values, category_ids).flatten(1)]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        pooled = self.norm(outputs[-1])
        levels = [outputs[i] for i in self.level_indices]
        return {"tokens": pooled.unsqueeze(1), "pooled": pooled} | numbered(levels)


class ReGLU(nn.Module):
    """Linear - a * ReLU(b) of its two halves - dropout - Linear (Shazeer 2020).

    Args:
        dim: Width of input and output.
        hidden_features: Hidden width.
        dropout: Dropout before the second layer.
    """

    def __init__(self, dim: int, hidden_features: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 2 * hidden_features), nn.Linear(hidden_features, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        a, b = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(self.dropout(a * b.relu()))


class ColumnAttention(nn.Module):
    """One layer of FT-Transformer: x + Attention(norm(x)), then x + ReGLU(norm(x)).

    Args:
        dim: Width.
        num_heads: Number of attention heads; divides ``dim``.
        dropout: Dropout after the attention, and inside the feed-forward network.
        is_first: Omit the norm before the attention; the first layer trains better without it.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, is_first: bool) -> None:
        super().__init__()
        self.norm_attention = nn.Identity() if is_first else nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = ReGLU(dim, dim * 4 // 3, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        normed = self.norm_attention(x)
        attended, _ = self.attention(normed, normed)
        x = x + self.dropout(attended)
        return x + self.mlp(self.norm_mlp(x))


@register("table_tower", "ft_transformer")
class FTTransformer(TableTower):
    """FT-Transformer (Gorishniy et al. 2021): attention over one token per column and a class token.

    The pooled vector is the class token after the last layer norm; the tokens are those of the columns, numeric ones
    first, including missing cells. Unlike in the published model, dropout is on the output of the attention rather than
    on its weights. Use it for more than a few columns; for fewer, ``table_mlp`` is as good and trains faster.

    Args:
        numeric: Number of numeric columns.
        categories: Number of values seen in training, for each categorical column.
        bins: Number of bin edges of each numeric column; None means none.
        embedding: Embedding of numbers: ``piecewise_linear``, ``linear`` (the published one) or ``periodic``.
        dim: Width of the tokens, and of the output.
        num_layers: Number of attention layers, at least 1.
        num_heads: Number of heads per layer; divides ``dim``.
        dropout: Dropout within each layer.
        cell_dropout: Probability that a training cell is hidden.
        num_levels: Number of levels to return, the class token after equally spaced layers; some repeat if there are
            fewer layers.
    """

    def __init__(
        self,
        numeric: int = 0,
        categories: Sequence[int] = (),
        bins: Sequence[int] | None = None,
        embedding: Embedding = "piecewise_linear",
        dim: int = 128,
        num_layers: int = 3,
        num_heads: int = 8,
        dropout: float = 0.1,
        cell_dropout: float = 0.05,
        num_levels: int = 0,
    ) -> None:
        check_heads(dim, num_heads)
        super().__init__(numeric, categories, bins, embedding, dim, cell_dropout)
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} is less than 1.")
        self.cls = nn.Parameter(torch.empty(dim))
        nn.init.uniform_(self.cls, -(dim**-0.5), dim**-0.5)
        self.layers = nn.ModuleList(
            ColumnAttention(dim, num_heads, dropout, is_first=i == 0) for i in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.num_features = dim
        self.level_indices = level_indices(num_layers, num_levels)
        self.level_dims = [dim] * num_levels

    def encode(self, numeric_values: Tensor | None = None, category_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Numbers (B, C) and ids (B, K) -> ``tokens`` (B, C + K, dim), ``pooled``, and levels except the last."""
        x = self.columns(numeric_values, category_ids)
        x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        x = self.norm(outputs[-1])
        levels = [outputs[i][:, 0] for i in self.level_indices]
        return {"tokens": x[:, 1:], "pooled": x[:, 0]} | numbered(levels)
