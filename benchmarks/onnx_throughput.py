"""Samples per second of ONNX Runtime and of eager torch on the CPU, for one model with random weights.

Eager torch uses channels_last for images and weights, like `mmfusion predict`, because it is faster on a CPU. Both
process the same batches alternately with the same number of threads (`OMP_NUM_THREADS`; 1 for the numbers in the docs).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch

import mmfusion
from mmfusion.exporting.inputs import random_inputs
from mmfusion.exporting.program import write_program
from mmfusion.inference.onnx_model import open_session, run_session
from timing import compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mibf_lite0")
    parser.add_argument("--image-size", type=int, nargs="*", default=[96, 224])
    parser.add_argument("--batch-size", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two repeats at 96 px: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.image_size, options.repeats = [96], 2

    torch.manual_seed(0)
    model = mmfusion.create_model(options.model, num_classes=7).eval()
    eager_model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    print(
        f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads; {options.model}, {options.tokens} tokens"
    )
    print(f"{'pixels':>6} {'batch':>5} {'eager /s':>9} {'onnx /s':>9} {'faster':>7}  {'largest difference':>18}")
    for size in options.image_size:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            difference = write_program(model, path, image_size=size)
            session = open_session(path, "cpu")
            for rows in options.batch_size:
                inputs = random_inputs(model, image_size=size, rows=rows, length=options.tokens, images=2)
                pixels = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
                eager_inputs = inputs | {"pixel_values": pixels}
                with torch.inference_mode():
                    ratio, ours, eager = compare(
                        lambda inputs=inputs, session=session: run_session(session, inputs),
                        lambda inputs=eager_inputs: eager_model(**inputs),
                        options.repeats,
                    )
                figures = f"{rows / eager:>9.1f} {rows / ours:>9.1f} {1 / ratio:>7.2f}  {difference:>18.1e}"
                print(f"{size:>6} {rows:>5} {figures}", flush=True)


if __name__ == "__main__":
    main()
