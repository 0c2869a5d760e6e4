"""CPU seconds of `import mmfusion`, `mmfusion --help`, a first model and a first diagnosis, and the libraries loaded.

Times are CPU times of one thread, on which other programs have less effect than on wall time. Ratios and differences
are those of consecutive runs.

Budgets: 0.15 s more than a bare interpreter for the import, without any tensor library; 0.6 s for the help; for
`create_model` of a small model without text, 0.2 s more than importing torch and timm; for a process that loads the
shipped weights and diagnoses one image, 1.1 times importing torch, timm and transformers' BERT.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "numpy",
    "pandas",
    "sklearn",
    "matplotlib",
    "PIL",
)
HELP = "import sys; from mmfusion.cli.main import main; sys.argv = ['mmfusion', '--help']; main()"
VISION = "import torch, timm"
MODEL = "import mmfusion; mmfusion.create_model('image_lite0', image_encoder='test_resnet')"
LIBRARIES = "import torch, timm; from transformers import BertModel"
DIAGNOSIS = """
import mmfusion
from PIL import Image
(name,) = mmfusion.list_models("mibf_lite0*", pretrained=True)
picture = Image.effect_mandelbrot((200, 150), (-2, -1.5, 1, 1.5), 50).convert("RGB")
row = {"image": picture, "age": 55, "sex": "male", "localization": "back"}
print(mmfusion.Predictor.from_pretrained(name).predict([row]))
"""
REPORT = f"import sys; print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"


def seconds(code: str) -> float:
    """CPU time of a new interpreter that runs the code in one thread."""
    start = os.times()
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=one)
    end = os.times()
    return end.children_user + end.children_system - start.children_user - start.children_system


def loaded(code: str) -> str:
    """The heavy libraries that a new interpreter has loaded after running the code."""
    program = f"import atexit; atexit.register(lambda: exec({REPORT!r}, {{}}))\n{code}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stderr.strip().removeprefix("loaded:").strip() or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="three repeats")
    options = parser.parse_args()
    repeats = 3 if options.quick else options.repeats

    rows = {
        "bare interpreter": "pass",
        "import mmfusion": "import mmfusion",
        "mmfusion --help": HELP,
        "torch, timm": VISION,
        "a small model": MODEL,
        "torch, timm, BERT": LIBRARIES,
        "a first diagnosis": DIAGNOSIS,
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, code in rows.items():
            times[name].append(seconds(code))
    bare = statistics.median(times["bare interpreter"])
    print(f"{'':<20}{'seconds':>9}{'over bare':>11}  heavy libraries")
    for name, code in rows.items():
        median = statistics.median(times[name])
        print(f"{name:<20}{median:>9.3f}{median - bare:>11.3f}  {loaded(code)}")
    over = [a - b for a, b in zip(times["a small model"], times["torch, timm"], strict=True)]
    print(f"small model minus importing torch and timm, consecutive runs: {statistics.median(over):.2f} s (0.2)")
    ratios = [a / b for a, b in zip(times["a first diagnosis"], times["torch, timm, BERT"], strict=True)]
    print(f"first diagnosis / importing the libraries, consecutive runs: {statistics.median(ratios):.2f} (1.1)")


if __name__ == "__main__":
    main()
