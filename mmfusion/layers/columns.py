"""Embeddings of table cells, numeric and categorical, with missing values: one vector per column."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mmfusion.layers.precision import at_least_float32
from mmfusion.names import check_choice

if TYPE_CHECKING:
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings

#: reserved ids of every categorical column: a missing cell, and a value not seen in training.
RESERVED = 2

#: largest absolute scaled number that is kept unchanged; larger ones are compressed logarithmically.
LINEAR_UP_TO = 3.0
_LARGEST = 1e6

Embedding = Literal["linear", "periodic", "piecewise_linear"]


class Standardize(nn.Module):
    """Standardization with the statistics of the training rows, z = (x - mean) / scale, which compresses outliers.

    |z| <= 3 is kept unchanged. A larger one becomes sign(z) (3 + log(1 + |z| - 3)), which is still strictly increasing
    but at most 17, so that a typing error cannot dominate the other columns.

    Args:
        num_columns: C.

    Attributes:
        mean: (C,), 0 until :meth:`set` is called. At least float32, also in half-precision models: in bfloat16 the
            years from 1996 to 2004 would be the same number.
        scale: (C,), 1 until :meth:`set` is called.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("scale", torch.ones(num_columns))

    def set(self, mean: Tensor, scale: Tensor) -> None:
        """Set mean and scale (C,) of the training rows.

        Raises:
            ValueError: Another number of columns, a value that is not finite, or a scale that is not above 0.
        """
        for name, given in (("mean", mean), ("scale", scale)):
            if given.shape != self.mean.shape or not bool(given.isfinite().all()):
                raise ValueError(f"{name}={given.tolist()} needs {len(self.mean)} finite numbers, one per column.")
        if not bool((scale > 0).all()):
            raise ValueError(f"scale={scale.tolist()} must be above 0; a constant column has scale 1.")
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, values: Tensor) -> Tensor:
        """(..., C) in the user's units, none of them NaN -> (..., C)."""
        return drawn_in((values.to(self.mean.dtype) - self.mean) / self.scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Standardize":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, exact in before.items():
            moved: Any = self._buffers[name]
            if exact is not None and at_least_float32(moved).dtype != moved.dtype:
                self._buffers[name] = at_least_float32(exact.to(moved.device))
        return self


def drawn_in(z: Tensor) -> Tensor:
    """Compress scaled numbers beyond 3 as in :class:`Standardize`."""
    z = z.clamp(-_LARGEST, _LARGEST)
    beyond = (z.abs() - LINEAR_UP_TO).clamp(min=0)
    return torch.where(beyond > 0, z.sign() * (LINEAR_UP_TO + beyond.log1p()), z)


class NumericEmbeddings(nn.Module):
    """One vector per numeric column (Gorishniy et al. 2022), with a learned vector for missing cells.

    ================= =============================================================================================
    linear            z w + b
    piecewise_linear  z w + b plus a learned step for each bin of the training rows' quantiles; the steps are
                      initially 0. A column with fewer than 3 edges, or none given, has no steps.
    periodic          sines and cosines of learned frequencies of z, then a layer and ReLU
    ================= =============================================================================================

    All are continuous in the number, so that similar values have similar vectors, including values that no training row
    has. Outside the training range the first two are linear in z, which :class:`Standardize` bounds; ``periodic`` is
    bounded.

    Args:
        num_columns: C, at least 1.
        dim: Width of the vectors.
        embedding: Type of embedding; see the table.
        bins: Number of bin edges of each column, for ``piecewise_linear``; None means none.
        frequency_scale: Standard deviation of the initial frequencies, for ``periodic``; larger is less smooth.

    Raises:
        ValueError: An unknown embedding, or ``bins`` for another number of columns.
    """

    def __init__(
        self,
        num_columns: int,
        dim: int,
        embedding: Embedding = "piecewise_linear",
        bins: Sequence[int] | None = None,
        frequency_scale: float = 0.01,
    ) -> None:
        from rtdl_num_embeddings import LinearEmbeddings, PeriodicEmbeddings  # loads scikit-learn

        super().__init__()
        check_choice("embedding", embedding, ("linear", "periodic", "piecewise_linear"))
        if bins is not None and len(bins) != num_columns:
            raise ValueError(f"bins={list(bins)} has to hold {num_columns} numbers of edges, one per numeric column.")
        self.standardize = Standardize(num_columns)
        self.edges = [count if count > 2 else 0 for count in bins or []] if embedding == "piecewise_linear" else []
        self.embed: Any
        if embedding == "periodic":
            sizes: dict[str, Any] = {"n_frequencies": 16, "frequency_init_scale": frequency_scale}
            self.embed = PeriodicEmbeddings(num_columns, dim, **sizes, lite=False)
        elif any(self.edges):
            self.embed = _piecewise_linear(self.edges, dim)
        else:
            self.embed = LinearEmbeddings(num_columns, dim)
        self.missing = nn.Parameter(torch.zeros(num_columns, dim))

    def no_weight_decay(self) -> set[str]:
        """Biases of columns and vectors of missing cells, which have two dimensions like weights."""
        return {name for name, _ in self.named_parameters() if name == "missing" or name.endswith("bias")}

    def set_statistics(self, mean: Tensor, scale: Tensor, edges: Sequence[Tensor] = ()) -> None:
        """Set the statistics of the training rows, in the user's units.

        Args:
            mean: (C,).
            scale: (C,), above 0.
            edges: Bin edges of each column, strictly increasing; used only by ``piecewise_linear``, for columns with at
                least 3.

        Raises:
            ValueError: Numbers that are not finite, a scale that is not above 0, or edges that do not increase or whose
                number differs from ``bins``.
        """
        from rtdl_num_embeddings import PiecewiseLinearEncoding  # loads scikit-learn

        self.standardize.set(mean, scale)
        if not any(self.edges):
            return
        scaled = [self._scaled(edges, column) if count else _no_steps() for column, count in enumerate(self.edges)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two edges, a column without steps
            self.embed.impl.load_state_dict(PiecewiseLinearEncoding(scaled).impl.state_dict())

    def _scaled(self, edges: Sequence[Tensor], column: int) -> Tensor:
        """The edges of a column in units of the training rows."""
        given = edges[column].double().cpu() if column < len(edges) else torch.zeros(0)
        if len(given) != self.edges[column]:
            told = f"bins[{column}]={self.edges[column]}"
            raise ValueError(f"Numeric column {column} has {len(given)} edges, and the model was built for {told}.")
        mean, scale = (float(x[column]) for x in (self.standardize.mean, self.standardize.scale))
        scaled = drawn_in((given - mean) / scale).float()
        if not bool((scaled.diff() > 0).all()):
            raise ValueError(f"The edges {given.tolist()} of numeric column {column} do not strictly increase.")
        return scaled

    def forward(self, values: Tensor) -> Tensor:
        """(B, C) in the user's units, NaN where a cell is missing -> (B, C, dim)."""
        known = ~values.isnan()
        # a NaN that is only masked afterwards would make the gradient NaN
        z = self.standardize(torch.where(known, values, 0))
        embedded = self._embedded(z.to(self.missing.dtype))
        return torch.where(known.unsqueeze(-1), embedded, self.missing.to(embedded.dtype))

    def _embedded(self, z: Tensor) -> Tensor:
        """Scaled numbers (B, C) -> (B, C, dim)."""
        if not any(self.edges):
            embedded: Tensor = self.embed(z)
            return embedded
        # the package's computation with bmm, because torch.export supports its matmul only for several rows
        steps = torch.bmm(self.embed.impl(z).transpose(0, 1), self.embed.linear.weight).transpose(0, 1)
        line: Tensor = self.embed.linear0(z)
        return line + steps


def _no_steps() -> Tensor:
    """Edges of a column without steps: a single bin, which makes the embedding linear."""
    return torch.tensor([-1.0, 1.0], device="cpu")


def _piecewise_linear(edges: Sequence[int], dim: int) -> "PiecewiseLinearEmbeddings":
    """The package's module for these numbers of edges per column; the edges are set later."""
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings  # loads scikit-learn

    device = torch.get_default_device()
    # the package reads the edges' values, which do not exist on the meta device
    with torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two edges, a column without steps
        places = [torch.linspace(-1, 1, count) if count else _no_steps() for count in edges]
        module = PiecewiseLinearEmbeddings(places, dim, activation=False, version="B")
    return module if device.type == "cpu" else module.to(device)


class CategoryEmbeddings(nn.Module):
    """One vector per categorical column: the vector of its value plus the vector of the column.

    Ids are 0 for a missing cell, 1 for a value not seen in training, then the values seen. The vectors of the first two
    are initially zero.

    Args:
        categories: Number of values seen in training, for each column.
        dim: Width of the vectors.
    """

    first: Tensor

    def __init__(self, categories: Sequence[int], dim: int) -> None:
        super().__init__()
        sizes = [count + RESERVED for count in categories]
        self.sizes = sizes
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.register_buffer("first", torch.tensor(starts), persistent=False)
        self.embed = nn.Embedding(sum(sizes), dim)
        self.bias = nn.Parameter(torch.empty(len(sizes), dim))
        bound = dim**-0.5
        nn.init.uniform_(self.embed.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        with torch.no_grad():
            for start in starts:
                self.embed.weight[start : start + RESERVED] = 0

    def no_weight_decay(self) -> set[str]:
        """The columns' biases, which have two dimensions like weights."""
        return {"bias"}

    def check(self, ids: Tensor) -> None:
        """Raise ValueError, naming column and id, for an id that its column does not have."""
        wrong = (ids < 0) | (ids >= ids.new_tensor(self.sizes))
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"category_ids: {int(ids[row, column])} in column {column}, whose ids are 0 (missing), 1 (not seen in "
                f"training) and 2 to {self.sizes[column] - 1} (table_args['categories'][{column}]="
                f"{self.sizes[column] - RESERVED})."
            )

    def forward(self, ids: Tensor) -> Tensor:
        """(B, K) int64 -> (B, K, dim)."""
        return self.embed(ids + self.first) + self.bias
