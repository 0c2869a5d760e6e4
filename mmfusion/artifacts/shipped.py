"""Trained weights in installed packages: mmfusion's own, and those of an entry-point group.

Each ``arch.tag`` is a folder with a saved model. mmfusion's own are in ``mmfusion/checkpoints``. Other distributions
define an entry point of the group ``mmfusion.weights`` whose value is a package with such folders next to its
``__init__.py``; none of its code is run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmfusion.artifacts.names import CONFIG, METRICS, WEIGHTS
from mmfusion.names import natural_key
from mmfusion.untrusted import read_foreign_json

logger = logging.getLogger(__name__)

#: Entry-point group of packages with weights.
GROUP = "mmfusion.weights"

#: Metrics shown in lists.
SHOWN = ("accuracy", "balanced_accuracy", "macro_auroc")


class Weights(str):
    """Name of installed weights, ``arch.tag``: a string with further attributes.

    Attributes:
        folder: The saved model.
        package: The package that contains it.
        config: Its ``config.json``.
        metrics: Its ``metrics.json``; empty if it has none.
        dataset: Name of its training data set.
        license: License of the weights, as the Hub spells it.
        terms: The license in words.
        size: Size of the weights in bytes.
    """

    folder: Path
    package: str

    def __new__(cls, folder: Path, package: str = "mmfusion") -> Weights:
        name = super().__new__(cls, folder.name)
        name.folder, name.package = folder, package
        return name

    def __reduce__(self) -> tuple[type[Weights], tuple[Path, str]]:
        return Weights, (self.folder, self.package)

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_foreign_json(self.folder / CONFIG)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        path = self.folder / METRICS
        return read_foreign_json(path) if path.is_file() else {}

    @property
    def dataset(self) -> str | None:
        return (self.config.get("card") or {}).get("dataset")

    @property
    def license(self) -> str | None:
        return (self.config.get("card") or {}).get("license")

    @property
    def terms(self) -> str:
        if self.license is None:
            return "license unknown"
        return f"{self.license} (for research only)" if "-nc" in self.license.lower() else self.license

    @property
    def size(self) -> int:
        return (self.folder / WEIGHTS).stat().st_size

    def facts(self) -> list[str]:
        """Data set, metrics, size, license and (for other weights) the package, in words."""
        known = {name: self.metrics.get(name) for name in SHOWN}
        figures = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in known.items() if value is not None]
        where = " ".join(filter(None, (self.dataset, self.metrics.get("split"))))
        package = [] if self.package == "mmfusion" else [f"from {self.package}"]
        return [*filter(None, [where]), *figures, f"{self.size / 1e6:.1f} MB", self.terms, *package]

    def __repr__(self) -> str:
        return f"<{self}: {', '.join(self.facts())}>"


def shipped() -> list[Weights]:
    """All weights of installed packages, in natural order; see :func:`refuse_clash` for shared names."""
    found = [Weights(path, package) for package, root in _roots().items() for path in _models_in(root, package)]
    return sorted(found, key=natural_key)


def refuse_clash(weights: list[Weights]) -> None:
    """Raise ValueError if two packages have weights of the same name."""
    packages: dict[str, str] = {}
    for each in weights:
        if (other := packages.setdefault(str(each), each.package)) != each.package:
            raise ValueError(f"{each} is in both {other} and {each.package}; uninstall one of the two.")


@cache
def tell_terms(weights: Weights) -> None:
    """Report the license of weights, once per process."""
    logger.warning("%s: weights under %s, from %s", weights, weights.terms, weights.package)


@cache
def _roots() -> dict[str, Path]:
    """Package -> its folder of weights."""
    from importlib.metadata import entry_points

    roots = {"mmfusion": Path(__file__).parents[1] / "checkpoints"}
    for entry in entry_points(group=GROUP):
        package, *inner = entry.value.split(".")
        spec = find_spec(package) if all(map(str.isidentifier, (package, *inner))) else None
        if spec is None or not spec.submodule_search_locations:
            logger.warning("The entry point %r of %s is not a package: %r", entry.name, GROUP, entry.value)
        else:
            roots[entry.value] = Path(spec.submodule_search_locations[0]).joinpath(*inner)
    return roots


def _models_in(root: Path, package: str) -> Iterator[Path]:
    """Folders ``arch.tag`` in a package's folder; links out of it are skipped with a warning."""
    for path in root.iterdir() if root.is_dir() else ():
        if "." in path.name and (path / CONFIG).is_file():
            if (path / WEIGHTS).resolve().is_relative_to(root.resolve()):
                yield path
            else:
                logger.warning("%s of the package %s is a link out of its folder and is skipped", path.name, package)
