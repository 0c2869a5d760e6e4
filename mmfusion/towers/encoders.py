"""Image encoders from a folder or a repository: configuration in plain values, and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import safe_open

from mmfusion.files import read_json
from mmfusion.names import did_you_mean
from mmfusion.repositories import HUB, LOCAL, fetch_files, terms
from mmfusion.towers.vision import VisionEncoder, preprocessing, vision_config

_CONFIG, _PREPROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_SHARDS = ("model.safetensors.index.json", "model-*-of-*.safetensors")

#: Entries of timm's ``pretrained_cfg`` to keep: preprocessing, name of the classifier, license.
_SHOWN = (
    *("input_size", "fixed_input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "pool_size"),
    *("num_classes", "first_conv", "classifier", "license"),
)


def has_own_config(encoder: str) -> bool:
    """Whether a name refers to a repository or a folder rather than a timm model."""
    return encoder.startswith((HUB, LOCAL)) or (not timm.is_model(encoder) and _path(encoder).is_dir())


def _path(encoder: str) -> Path:
    return Path(encoder.removeprefix(LOCAL)).expanduser()


def check_image_encoder(encoder: str) -> None:
    """Raise ValueError, with similar names, for an unknown timm model or a missing folder.

    Repositories are not checked.
    """
    if encoder.startswith(HUB) or (has_own_config(encoder) and _path(encoder).is_dir()):
        return
    if encoder.startswith(LOCAL):
        raise ValueError(f"image_encoder {encoder!r}: the folder {_path(encoder)} does not exist.")
    if not timm.is_model(encoder):
        hint = f" For a repository of the Hub write '{HUB}{encoder}'." if encoder.count("/") == 1 else ""
        raise ValueError(f"Unknown image_encoder {encoder!r}; {did_you_mean(encoder, timm.list_models())}{hint}")


def encoder_folder(encoder: str, weights: str | None) -> Path:
    """The folder of an encoder's files; missing files of a repository are downloaded.

    Raises:
        FileNotFoundError: The folder or repository does not exist or is unreachable, or it has no weights.
    """
    if encoder.startswith(HUB):
        wanted = [_CONFIG, _PREPROCESSOR, "README.md", *([_WEIGHTS, *_SHARDS] if weights is not None else [])]
        folder = fetch_files(encoder, wanted)
    else:
        folder = _path(encoder)
    if not (folder / _CONFIG).is_file():
        raise FileNotFoundError(f"image_encoder {encoder!r} has no {_CONFIG}.")
    if weights is not None and not any((folder / name).is_file() for name in (_WEIGHTS, _SHARDS[0])):
        raise FileNotFoundError(
            f"image_encoder {encoder!r} has no {_WEIGHTS}; weights in other files (pytorch_model.bin) are pickle, "
            "which may run any code, and are not read. Convert them once (docs/parts/encoders.md), or pass "
            "encoder_weights=None."
        )
    return folder


def inlined(encoder: str, folder: Path) -> dict[str, Any]:
    """Configuration of a folder's encoder in plain values that rebuild it: ``image_args["config"]``.

    Raises:
        ValueError: It belongs to neither library, or has an unsupported type.
    """
    config = read_json(folder / _CONFIG)
    if "architecture" in config and "model" not in config:
        cfg = config.get("pretrained_cfg", config)
        cfg = {key: cfg[key] for key in _SHOWN if cfg.get(key) is not None}
        cfg |= {"num_classes": config["num_classes"]} if "num_classes" in config else {}
        args = {k: v for k, v in (config.get("model_args") or {}).items() if k != "num_classes"}
        own = {"architecture": config["architecture"], "model_args": args, "pretrained_cfg": cfg}
        return {"library": "timm", **own}
    if "model_type" in config:
        values = read_json(folder / _PREPROCESSOR) if (folder / _PREPROCESSOR).is_file() else {}
        vision = vision_config(config, encoder)
        return {"library": "transformers", "config": vision, "pretrained_cfg": preprocessing(values, vision)}
    what = "a saved model of mmfusion, not an encoder" if "model" in config else "from neither timm nor transformers"
    raise ValueError(f"image_encoder {encoder!r} is {what}: its {_CONFIG} has no architecture and no model_type.")


def build(encoder: str, config: Mapping[str, Any], folder: Path | None, args: Mapping[str, Any]) -> Any:
    """Build the model described by :func:`inlined`, without its classifier.

    Args:
        encoder: Its name, for messages.
        config: Plain values.
        folder: Folder of the weights; None leaves them random.
        args: Keywords of the library's model, which override ``config``.

    Raises:
        ValueError: The values are invalid, or the weights do not match.
        TypeError: The model has no such keyword.
    """
    library = config.get("library")
    if library == "transformers":
        return VisionEncoder(config["config"], config["pretrained_cfg"], folder, encoder, **args)
    name = config.get("architecture")
    if library != "timm" or not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f"image_encoder {encoder!r}: its architecture {name!r} of {library!r} is not known here.")
    cfg = {key: value for key, value in config["pretrained_cfg"].items() if key in _SHOWN}
    file = {} if folder is None else {"file": str(folder / _WEIGHTS)}
    options = {**config["model_args"], **args}
    model: Any = timm.create_model(
        name, pretrained=folder is not None, pretrained_cfg=cfg | file, num_classes=0, **options
    )
    model.pretrained_cfg = cfg
    if folder is not None:
        _check_whole(model, folder / _WEIGHTS)
    return model


def _check_whole(model: Any, path: Path) -> None:
    """Reject a file without some of a model's weights, which timm would silently leave random."""
    with safe_open(path, framework="pt") as file:
        there = set(file.keys())
    counts = "num_batches_tracked"  # missing in older files, and filled in by torch
    if missing := [name for name in model.state_dict() if name not in there and not name.endswith(counts)]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{path} has no weights for {', '.join(missing[:3])}{more}.")


def origin_of(encoder: str, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Origin and terms of weights: ``source``, ``license`` and ``gated``."""
    if not encoder.startswith(HUB):
        return {"source": f"{LOCAL}{folder.name}", **terms(encoder, folder)}
    repository = encoder.partition("@")[0]
    found = terms(encoder, folder)
    found["license"] = found["license"] or config["pretrained_cfg"].get("license")
    return {"source": f"{repository}@{folder.name}", **found}
