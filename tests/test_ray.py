"""``examples/predict_with_ray.py``: its worker, and a local Ray of two workers, one of which is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import mmfusion
from mmfusion.data import Processor, fit_wordpiece

ROOT = Path(mmfusion.__file__).parents[1]


@pytest.fixture
def example() -> Any:
    pytest.importorskip("ray")
    spec = importlib.util.spec_from_file_location("predict_with_ray", ROOT / "examples" / "predict_with_ray.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)  # not in sys.modules, so that Ray sends its classes to the workers
    return example


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    processor = Processor(["a", "b", "c"], image_size=32, tokenizer=fit_wordpiece(["a red spot"], 64))
    model = mmfusion.create_model("test_concat", num_classes=3, processor=processor)
    mmfusion.save_pretrained(model, tmp_path / "model", processor)
    return f"local-dir:{tmp_path / 'model'}"


def test_embedded_images_of_which_one_is_damaged(example: Any, model: str, toy: Path) -> None:
    whole = (toy / "case0.png").read_bytes()
    cells = [{"bytes": whole}, {"bytes": b"no image"}, {"bytes": None, "path": "case0.png"}, "case0.png", None]
    batch = pd.DataFrame({"id": range(5), "image": cells, "text": ["a red spot"] * 5}, index=range(3, 8))
    found = example.Diagnose(model, str(toy))(batch)
    assert [bool(error) for error in found["error"]] == [False, True, False, False, False]
    assert found["p_a"][3] == found["p_a"][5] == found["p_a"][6] != found["p_a"][7]


@pytest.mark.slow
def test_two_workers_one_of_them_killed(
    example: Any, model: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    images = [f"case{i}.png" for i in range(20)] + ["none.png"]
    table = pd.DataFrame({"id": [f"r{i}" for i in range(21)], "image": images, "text": ["a red spot"] * 21})
    table.to_parquet(tmp_path / "rows.parquet")

    mark = tmp_path / "killed"

    class Killed(example.Diagnose):
        def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env=env,
        log_to_driver=False,
    )
    try:
        data = ray.data.read_parquet(str(tmp_path / "rows.parquet"))
        told = {"model": model, "images": str(toy)}
        found = example.predictions(data, workers=2, batch_size=4, worker=Killed, **told).to_pandas()
    finally:
        ray.shutdown()
    assert mark.exists()
    assert found["id"].tolist() == table["id"].tolist()
    assert found["error"].tolist()[:20] == [""] * 20 and "none.png" in found["error"][20]
    rows = [{"image": toy / image, "text": "a red spot"} for image in images[:20]]
    expected = mmfusion.Predictor.from_pretrained(model).predict_proba(rows)
    assert found[["p_a", "p_b", "p_c"]].to_numpy()[:20] == pytest.approx(expected, abs=1e-5)
    assert found["label"].tolist()[:20] == ["abc"[i] for i in expected.argmax(axis=1)]
