"""Format versions of saved models, and renamed entries of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Current version. tests/models/golden has a folder of each version, written by the mmfusion of its time.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Renamed:
    """Renamed entries of a format version.

    Attributes:
        keywords: Old -> new keyword of a model (``config["model"]``).
        parts: New keyword -> old -> new name of a part, e.g. ``{"fusion": {"old": "new"}}``.
        tensors: Old -> new prefix of tensor names.
    """

    keywords: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)


#: Version -> names that are new in it. To rename a keyword, a part or a layer, raise FORMAT_VERSION and add an entry;
#: nothing has been renamed since version 1.
RENAMED: dict[int, Renamed] = {}


def renamed_model(model: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The keywords of a model saved in an earlier format version, with current names."""
    found = dict(model)
    for renamed in _since(version):
        found = {renamed.keywords.get(name, name): value for name, value in found.items()}
        for keyword, names in renamed.parts.items():
            if found.get(keyword) in names:
                found[keyword] = names[found[keyword]]
    return found


def renamed_tensors(state: Mapping[str, Tensor], version: int) -> dict[str, Tensor]:
    """The weights of a model saved in an earlier format version, with current names."""
    found = dict(state)
    for renamed in _since(version):
        found = {_renamed(name, renamed.tensors): tensor for name, tensor in found.items()}
    return found


def _since(version: int) -> list[Renamed]:
    return [RENAMED[later] for later in sorted(RENAMED) if later > version]


def _renamed(name: str, beginnings: Mapping[str, str]) -> str:
    old = max((old for old in beginnings if name.startswith(old)), key=len, default=None)
    return name if old is None else beginnings[old] + name.removeprefix(old)
