"""Lists of models and trained weights, with timm's names."""

from collections.abc import Sequence
from typing import Any

from mmfusion import registry
from mmfusion.artifacts.folder import shipped_weights
from mmfusion.artifacts.shipped import refuse_clash, shipped
from mmfusion.models.fitting import image_cfg


def list_models(
    filter: str | Sequence[str] = "*", *, exclude_filters: str | Sequence[str] = (), pretrained: bool = False
) -> list[str]:
    """Names of the architectures that match a wildcard, in natural order.

    Args:
        filter: Shell wildcard, e.g. ``"mibf*"``, or several.
        exclude_filters: Wildcards of names to leave out.
        pretrained: List the weights of installed packages instead, as ``"arch.tag"``: mmfusion's own, and those of the
            entry-point group ``mmfusion.weights``. A wildcard may match the architecture alone. Each name is a ``str``
            with the attributes ``metrics``, ``dataset``, ``license``, ``package`` and ``size``.

    Raises:
        ValueError: Two packages have weights of the same name.
    """
    known: Sequence[str] = registry.names("model")
    if pretrained:
        known = weights = shipped()
        refuse_clash(weights)
    return [name for name in known if _matches(name, filter or "*") and not _matches(name, exclude_filters)]


def list_pretrained(filter: str | Sequence[str] = "*", *, exclude_filters: str | Sequence[str] = ()) -> list[str]:
    """Names of the weights that come with the package, ``"arch.tag"``, as plain strings; see :func:`list_models`."""
    return [str.__str__(name) for name in list_models(filter, exclude_filters=exclude_filters, pretrained=True)]


def list_components(kind: str, pattern: str = "*") -> list[str]:
    """Names of the parts of a kind: fusion, head, aggregator, image_tower, text_tower, table_tower, tower, loss."""
    return registry.names(kind, pattern)


def _matches(name: str, patterns: str | Sequence[str]) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(registry.matches(each, pattern) for pattern in patterns for each in (name, name.partition(".")[0]))


def is_model(name: str) -> bool:
    """Whether an architecture, or weights (``"arch.tag"``), of this name exist."""
    return name in list_pretrained() if "." in name else registry.is_known("model", name)


def get_pretrained_cfg(name: str) -> dict[str, Any]:
    """Configuration of weights that come with a package, without loading them.

    Args:
        name: ``"arch.tag"``, or an architecture, which selects its first tag.

    Returns:
        ``architecture``, ``tag``, ``num_classes``, ``label_names``, ``input_size``, ``mean``, ``std``,
        ``interpolation``, ``crop_pct``, ``crop_mode``, ``dataset``, ``license``, ``package``,
        ``size`` (bytes), ``metrics``.

    Raises:
        ValueError: No such weights exist.
    """
    weights = shipped_weights(name)
    config, processor = weights.config, weights.config["processor"]
    architecture, _, tag = weights.partition(".")
    cfg = {"architecture": architecture, "tag": tag, "num_classes": config["model"]["num_classes"]}
    cfg |= {"label_names": processor["labels"], **image_cfg(processor)}
    return cfg | {key: getattr(weights, key) for key in ("dataset", "license", "package", "size", "metrics")}
