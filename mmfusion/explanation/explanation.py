"""Explanation of one prediction."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from mmfusion.data import Processor
from mmfusion.explanation.attention import attention_maps
from mmfusion.explanation.columns import column_contributions
from mmfusion.explanation.contributions import Contributions, modality_contributions
from mmfusion.explanation.forward import attributing, has_modality
from mmfusion.explanation.image import image_relevance, present_pictures
from mmfusion.explanation.text import blank_text, token_relevance, words_of
from mmfusion.images.opening import centre_square, framed, open_image
from mmfusion.inference.onnx_model import OnnxModel
from mmfusion.inference.predictor import Predictor
from mmfusion.text.tokenizer import reads_digits


@dataclass
class Explanation(ModelOutput):
    """Explanation of the prediction for one sample. Fields by attribute or by key; None if not applicable.

    Attributes:
        label: The predicted class; for several labels the present ones, joined by ``|``.
        probability: Probability of the predicted class.
        probabilities: class -> probability.
        numbers: target -> value, low and high, of a regression, which has no label and no probabilities.
        explained: The explained class; by default the predicted one.
        heat_map: (H, W) float32 in [0, 1] over the model's view of the image: evidence for the class, scaled to its
            largest value; all 0 if there is none.
        heat_maps: picture -> (H, W), with a common scale, if the tower reads several images (``slice 3``, ``view 1``,
            ``global``, ``local``); else only ``image``.
        relevance: picture -> the signed map before scaling, in its original resolution.
        pictures: picture -> (H, W, 3) uint8, the image below the heat map.
        boxes: picture -> (left, top, right, bottom), the part of the picture that the model saw, in its pixels.
        attention: name -> (h, w), attention of the text to image positions, in attention fusion.
        words: (word, relevance) pairs of the text; positive values support the class.
        instances: (N,) attention to each vector of a bag, if the aggregator has attention; their sum is 1.
        columns: (column, Shapley value) pairs of the row's known cells, in units of probability; positive values
            support the class.
        gates: name -> values of gates, level weights and stream weights.
        experts: (K,) router probabilities of a mixture of experts.
        contributions: Contributions of image, text and columns to the probability of the class.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    numbers: dict[str, dict[str, float]] | None = None
    explained: str | None = None
    heat_map: NDArray[np.float32] | None = None
    heat_maps: dict[str, NDArray[np.float32]] | None = None
    relevance: dict[str, NDArray[np.float32]] | None = None
    pictures: dict[str, NDArray[np.uint8]] | None = None
    boxes: dict[str, tuple[float, float, float, float]] | None = None
    attention: dict[str, NDArray[np.float32]] | None = None
    words: list[tuple[str, float]] | None = None
    instances: NDArray[np.float32] | None = None
    columns: list[tuple[str, float]] | None = None
    gates: dict[str, NDArray[np.float32]] | None = None
    experts: NDArray[np.float32] | None = None
    contributions: Contributions | None = None


def explain_item(
    predictor: Predictor,
    item: Mapping[str, Any],
    *,
    image: Any = None,
    label: str | None = None,
    method: str = "grad_cam",
    level: int = -1,
    text_method: str = "integrated_gradients",
) -> Explanation:
    """Explain the prediction of one encoded sample.

    Args:
        predictor: The model, whose processor encoded the sample.
        item: Result of ``processor.encode_row`` (or of a data set).
        image: The original image, to draw the heat map over; None uses the model's view of it.
        label: As in :class:`~mmfusion.explanation.config.ExplainConfig`, like all following arguments.

    Raises:
        ValueError: An unknown class, method or level, or a model that cannot be explained (:func:`explainable`).
        ImportError: captum is not installed.
    """
    model, processor, task = explainable(predictor), predictor.processor, predictor.task
    device = next(model.parameters()).device
    batch = processor.collate([item])
    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    with attributing(model), torch.no_grad():
        output = model(**inputs)
    answer = task.spoken(task.raw(output), predictor.calibration)[0].cpu().numpy()
    target = task.foremost(answer) if label is None else processor.label_id(label)
    told = task.told(answer)
    found: dict[str, Any] = {
        **{name: told.get(name) for name in ("label", "probability", "probabilities")},
        "numbers": told.get("values"),
        "explained": processor.labels[target],
        "gates": {name: _array(gate[0]) for name, gate in output.gates.items()} if output.gates else None,
        "experts": _array(output.router_probs[0]) if output.router_probs is not None else None,
        "contributions": modality_contributions(model, inputs, target, calibration=predictor.calibration, task=task),
    }
    if model.image_layout == "bags" and has_modality(model, inputs, "image"):
        weights = (output.attentions or {}).get("slices")
        found["instances"] = None if weights is None else _array(weights[0].mean(dim=(0, 1)))
    elif has_modality(model, inputs, "image"):
        found |= _image_part(model, processor, inputs, target, method, level, image)
        sizes = [relevance.shape for relevance in found["relevance"].values()]
        if method == "grad_cam" and level == -1 and len(sizes) == 1:
            maps = attention_maps(output.attentions, sizes[0], inputs.get("attention_mask"))
            found["attention"] = {name: _array(value) for name, value in maps.items()} or None
    if has_modality(model, inputs, "text"):
        ids = inputs["input_ids"]
        blank = blank_text(ids, processor.tokenizer)
        relevance = token_relevance(model, inputs, target, baseline_ids=blank, method=text_method).tolist()
        tokenizer: Any = processor.tokenizer
        # The unknown token stands for a word, so it is shown.
        silent = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
        tokens, digits = tokenizer.convert_ids_to_tokens(ids[0].tolist()), reads_digits(tokenizer)
        found["words"] = words_of(tokens, relevance, silent, digits=digits)
    if has_modality(model, inputs, "table"):
        assert processor.table is not None
        names, calibration = processor.table.names, predictor.calibration
        found["columns"] = column_contributions(model, inputs, target, names, calibration=calibration, task=task)
    return Explanation(**found)


def explainable(predictor: Predictor) -> Any:
    """The model to explain; ValueError for an exported model or an ensemble, which cannot be explained."""
    if len(predictor.members) > 1:
        raise ValueError(f"An ensemble of {len(predictor.members)} models cannot be explained; explain one of them.")
    if isinstance(predictor.model, OnnxModel):
        raise ValueError("An exported model has no gradients to explain with; explain the model it was exported from.")
    return copy.copy(predictor.model)  # the same weights, uncompiled, because compiled code ignores hooks


def _image_part(
    model: Any, processor: Processor, inputs: Mapping[str, Tensor], target: int, method: str, level: int, image: Any
) -> dict[str, Any]:
    maps = image_relevance(model, inputs, target, method=method, level=level)
    views = _pictures(processor, model, inputs, len(maps))
    if len(views) != len(maps):
        raise ValueError(
            f"{type(model.image_tower).__name__} processed {len(maps)} images, but the sample has {len(views)}; "
            "this tower cannot be explained image by image."
        )
    size = inputs["pixel_values"].shape[-2:]
    grown = [F.interpolate(m[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0] for m in maps]
    strongest = max(float(m.max()) for m in grown)
    shares = [m.clamp(min=0) / strongest if strongest > 0 else torch.zeros_like(m) for m in grown]
    heat = dict(zip(views, map(_array, shares), strict=True))
    boxes = {name: (0.0, 0.0, float(view.shape[1]), float(view.shape[0])) for name, view in views.items()}
    if image is not None and not isinstance(image, list | tuple) and list(views) == ["image"]:
        picture = open_image(image, window=processor.window, slice=processor.slice)
        picture = framed(picture, processor.crop_mode, processor.mean)
        views, boxes = {"image": np.asarray(picture)}, {"image": centre_square(picture.size, processor.crop_pct)}
    return {
        "heat_map": next(iter(heat.values())),
        "heat_maps": heat,
        "relevance": dict(zip(views, map(_array, maps), strict=True)),
        "pictures": views,
        "boxes": boxes,
    }


def _pictures(processor: Processor, model: Any, inputs: Mapping[str, Tensor], count: int) -> dict[str, Any]:
    """The tower's input images, in its order, as pictures."""
    pixels = inputs["pixel_values"]
    if pixels.ndim == 5:
        kind = str(model.image_tower.layout).removesuffix("s")
        places = present_pictures(model, inputs).nonzero().flatten().tolist()
        return {f"{kind} {place + 1}": _picture(processor, pixels[0, place]) for place in places}
    seen = model.image_tower.pictures(inputs)
    return {name: _picture(processor, values[0]) for name, values in seen.items()} if len(seen) == count else {}


def _picture(processor: Processor, pixels: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) normalized -> (H, W, 3) uint8."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (processor.mean, processor.std))
    image = ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return image.permute(1, 2, 0).cpu().numpy()


def _array(x: Tensor) -> NDArray[np.float32]:
    return x.detach().float().cpu().numpy()
