"""Trained weights that come with the package: one saved model a folder, ``checkpoints/arch.tag``."""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from mmfusion.artifacts.names import CONFIG, METRICS, WEIGHTS
from mmfusion.files import read_json
from mmfusion.names import natural_key

#: figures that a list shows.
SHOWN = ("accuracy", "balanced_accuracy", "macro_auroc")


class Weights(str):
    """The name of shipped weights, ``arch.tag``: a string that also knows what they are.

    Attributes:
        folder: the saved model.
        config: its ``config.json``.
        metrics: its ``metrics.json``.
        dataset: name of the data set that it was trained on.
        license: of the weights, as the Hub spells it.
        size: of the weights in bytes.
    """

    folder: Path

    def __new__(cls, folder: Path) -> Weights:
        name = super().__new__(cls, folder.name)
        name.folder = folder
        return name

    def __reduce__(self) -> tuple[type[Weights], tuple[Path]]:
        return Weights, (self.folder,)

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / CONFIG)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / METRICS)

    @property
    def dataset(self) -> str | None:
        return self.config["card"]["dataset"]

    @property
    def license(self) -> str | None:
        return self.config["card"]["license"]

    @property
    def size(self) -> int:
        return (self.folder / WEIGHTS).stat().st_size

    def facts(self) -> list[str]:
        """Data set, figures on its rows, size and licence, in words."""
        figures = [f"{name.replace('_', ' ')} {self.metrics[name]:.3f}" for name in SHOWN]
        where = f"{self.dataset} {self.metrics['split']}"
        return [where, *figures, f"{self.size / 1e6:.1f} MB", str(self.license)]

    def __repr__(self) -> str:
        return f"<{self}: {', '.join(self.facts())}>"


def shipped() -> list[Weights]:
    """What comes with the package, in natural order."""
    root = Path(str(resources.files("mmfusion"))) / "checkpoints"
    folders = [path for path in root.iterdir() if (path / CONFIG).is_file()] if root.is_dir() else []
    return [Weights(path) for path in sorted(folders, key=lambda path: natural_key(path.name))]
