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
            entry-point group ``mmfusion.weights``. A wildcard may be of the architecture alone. Such a name is a string
            with ``metrics``, ``dataset``, ``license``, ``package`` and ``size``.

    Raises:
        ValueError: Two packages bring weights of one name.
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
    """Whether there is an architecture of that name, or weights of it (``"arch.tag"``)."""
    return name in list_pretrained() if "." in name else registry.is_known("model", name)


def get_pretrained_cfg(name: str) -> dict[str, Any]:
    """What is known of weights that come with the package, before they are loaded.

    Args:
        name: ``"arch.tag"``, or an architecture, whose first tag is meant.

    Returns:
        ``architecture``, ``tag``, ``num_classes``, ``label_names``, ``input_size``, ``mean``, ``std``,
        ``interpolation``, ``crop_pct``, ``crop_mode``, ``dataset``, ``license``, ``package``,
        ``size`` (bytes), ``metrics``.

    Raises:
        ValueError: There are no such weights.
    """
    weights = shipped_weights(name)
    config, processor = weights.config, weights.config["processor"]
    architecture, _, tag = weights.partition(".")
    cfg = {"architecture": architecture, "tag": tag, "num_classes": config["model"]["num_classes"]}
    cfg |= {"label_names": processor["labels"], **image_cfg(processor)}
    return cfg | {key: getattr(weights, key) for key in ("dataset", "license", "package", "size", "metrics")}
