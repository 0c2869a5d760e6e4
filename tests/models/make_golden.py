"""Write the golden folders of the current format version: `python tests/models/make_golden.py FOLDER`.

Run once per version, and kept for good: later versions must load what this one wrote, to the same predictions. The
folders of format-1 that end in `_first` were made by this script with the first commit that had saved models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import mmfusion
from mmfusion.data import Processor, fit_wordpiece

#: name -> architecture, overrides.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mibf": ("test_mibf", {"dim": 8, "image_args": {"channels": [4, 4, 4, 8], "stem_width": 4}, "aux_hidden": 4}),
    "text": ("test_text", {}),
    "slices": (
        "test_mibf",
        {
            "image_tower": "slices",
            "image_args": {"channels": [4, 4, 4, 8], "stem_width": 4},
            "stem": "2.5d",
            "aggregator": "ssm",
            "aggregator_args": {"hidden_size": 8, "d_state": 4},
            "dim": 8,
            "aux_hidden": 4,
            "head": "kan",
            "head_args": {"hidden_features": 4, "num_groups": 4},
        },
    ),
}
#: a text encoder of 8 x 1, so that a folder has about 50 kB.
TEXT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
}
LABELS = ["benign", "malignant", "unsure"]


def picture(seed: int) -> Image.Image:
    """16 x 16 pixels of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def rows(several: bool) -> list[dict[str, Any]]:
    """Rows to predict with the golden models."""
    facts = [{"age": 55, "sex": "man"}, {"age": 30, "sex": "woman"}]
    if several:
        return [{"images": [picture(10 * i + j) for j in range(2 + i)]} | fact for i, fact in enumerate(facts)]
    return [{"image": picture(i)} | fact for i, fact in enumerate(facts)]


def main() -> None:
    target = Path(sys.argv[1])
    tokenizer = fit_wordpiece(["a 55-year-old man", "a 30-year-old woman"], 64)
    for name, (architecture, overrides) in MODELS.items():
        torch.manual_seed(0)
        text = {"config": {**TEXT, "vocab_size": len(tokenizer)}}
        try:
            model = mmfusion.create_model(architecture, num_classes=3, text_args=text, **overrides)
        except (TypeError, ValueError) as error:  # an early version lacks some parts
            print(f"{name}: {error}")
            continue
        with torch.no_grad():  # as after training: norms are not neutral, and predictions differ between rows
            for parameter in model.parameters():
                parameter.add_(torch.rand_like(parameter) - 0.5)
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.add_(torch.rand_like(buffer) * 0.5)
        folder = target / name
        processor = Processor(
            labels=LABELS,
            image_size=16 if model.image_tower is not None else None,
            tokenizer=tokenizer,
            text_template="a {age}-year-old {sex}",
            max_length=16,
        )
        calibration = {"temperature": 1.25, "fitted_on": "val", "n": 12}
        predictor = mmfusion.Predictor(model, processor, calibration)
        predictor.save_pretrained(folder, {"accuracy": 0.5, "n": 12, "split": "test"})
        answers = mmfusion.Predictor.from_pretrained(f"local-dir:{folder}").predict(rows(name == "slices"))
        expected = [answer["probabilities"] for answer in answers]
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {expected}")


if __name__ == "__main__":
    main()
