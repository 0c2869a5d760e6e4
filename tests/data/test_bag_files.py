"""Bags of feature vectors: files, their problems, data sets and runs."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import mmfusion
from mmfusion.data import DatasetConfig, MultimodalDataset, Processor, check_images, read_cases
from mmfusion.data.bags import bag_width, open_bag

DIM = 6


def write_bag(path: Path, values: np.ndarray, key: str = "features") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file[key] = values
            file["coords"] = np.zeros((len(values), 2), dtype=np.int64)
    elif path.suffix == ".npz":
        np.savez(path, **{key: values})
    else:
        save_file({key: values}, path)
    return path


def write_table(folder: Path, rows: int = 24, bags: dict[int, str] | None = None) -> Path:
    """Bags of 3 to 9 vectors, whose mean depends on the class, in all formats."""
    rng = np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["slide", "label", "age", "split"])
        for i in range(rows):
            suffix = (".h5", ".npz", ".safetensors")[i % 3]
            values = rng.normal(2 * (i % 2), 1, (3 + i % 7, DIM)).astype((np.float32, np.float16)[i % 2])
            write_bag(folder / "bags" / f"{i}{suffix}", values)
            name = (bags or {}).get(i, f"bags/{i}")
            table.writerow([name, "ab"[i % 2], 30 + i, ("train", "train", "val", "test")[i // 2 % 4]])
    return folder


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_files_of_every_format(suffix, dtype, tmp_path):
    values = np.arange(4 * DIM, dtype=dtype).reshape(4, DIM) / 8
    path = write_bag(tmp_path / f"bag{suffix}", values)
    assert open_bag(path).dtype == np.float16
    np.testing.assert_array_equal(open_bag(path, DIM), values)
    np.testing.assert_array_equal(open_bag(write_bag(path, values[None]) if suffix != ".h5" else values[None]), values)
    assert bag_width(path) == DIM
    np.testing.assert_array_equal(open_bag(torch.from_numpy(values)), values)


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    values = np.ones((3, DIM), dtype=np.float32)
    for name, array, message in (
        ("nan.npz", np.where(np.eye(3, DIM) > 0, np.nan, values), "holds numbers that are not finite"),
        ("large.npz", values * 1e6, r"do not fit half precision \(above 65,504\)"),
        ("empty.h5", np.zeros((0, DIM), np.float32), "the bag is empty"),
        ("flat.npz", np.ones(DIM), r"a bag must have shape \(vectors, width\), got \(6,\)"),
        ("text.npz", np.array([["a"]]), "a bag must hold numbers"),
        ("wide.safetensors", np.ones((3, 7), np.float32), "the vectors have width 7, expected 6"),
    ):
        with pytest.raises(ValueError, match=message):
            open_bag(write_bag(tmp_path / name, array), DIM)
    for suffix in (".h5", ".npz", ".safetensors"):
        path = write_bag(tmp_path / f"whole{suffix}", np.ones((500, DIM), np.float32))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match="the bag cannot be read"):
            open_bag(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_bag(tmp_path / "none.h5")
    for name in ("bag.pt", "bag.pkl"):
        with pytest.raises(ValueError, match=f"{name} is a pickle, .* arbitrary code, and is not read; save"):
            open_bag(tmp_path / name)
    np.savez(tmp_path / "object.npz", features=np.array([[{}]], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        open_bag(tmp_path / "object.npz")
    np.savez(tmp_path / "two.npz", a=values, b=values)
    with pytest.raises(ValueError, match="the file has no array 'features'; it has a, b"):
        open_bag(tmp_path / "two.npz")


def test_rows_become_padded_batches(tmp_path):
    cases = read_cases(write_table(tmp_path), DatasetConfig(bag_column="slide"))
    assert cases.layout == "bags" and not check_images(cases).problems
    assert list(cases.frame["image"][:3]) == ["bags/0.h5", "bags/1.npz", "bags/2.safetensors"]
    rows = MultimodalDataset(cases, Processor(labels=["a", "b"], bag_dim=DIM))
    batch = rows.collate([rows[0], rows[6], rows[2]])
    assert batch["bag_values"].shape == (3, 9, DIM) and batch["bag_values"].dtype == torch.float16
    assert batch["bag_mask"].sum(1).tolist() == [3, 9, 5] and batch["image_present"].all()
    assert batch["bag_values"][~batch["bag_mask"]].abs().max() == 0
    np.testing.assert_array_equal(batch["bag_values"][2, :5].numpy(), open_bag(tmp_path / "bags/2.safetensors"))
    assert rows.collate([rows[0]])["labels"].tolist() == [0]


def test_each_bad_bag_is_a_problem_of_its_row(tmp_path):
    bags = {0: "bags/gone", 3: "bags/nan.npz", 5: "bags/wide.npz", 7: "bags/half.h5", 9: "bags/old.pt", 11: "../x.h5"}
    write_table(tmp_path, bags=bags)
    write_bag(tmp_path / "bags/nan.npz", np.full((2, DIM), np.nan))
    write_bag(tmp_path / "bags/wide.npz", np.ones((2, DIM + 1)))
    half = write_bag(tmp_path / "bags/half.h5", np.ones((500, DIM)))
    half.write_bytes(half.read_bytes()[:3000])
    (tmp_path / "bags/old.pt").write_bytes(b"pickle")
    cases = check_images(read_cases(tmp_path, DatasetConfig(bag_column="slide")))
    found = {problem.row - 1: problem.message for problem in cases.problems}
    assert found.keys() == bags.keys()
    assert "does not exist" in found[0] and "not finite" in found[3] and "cannot be read" in found[7]
    assert found[5] == "its vectors have width 7, those of most bags 6"
    assert "old.pt is a pickle" in found[9] and "must be inside the image root" in found[11]
    assert len(cases.resolve("skip")) == 24 - len(bags)


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"bag_column .* and study_column cannot be combined"):
        DatasetConfig(bag_column="slide", study_column="patient")


def test_a_run_on_bags_learns_saves_and_predicts(tmp_path):
    from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, train

    data = write_table(tmp_path)
    dataset = DatasetConfig(bag_column="slide", text_template="{age} years")
    model = ModelConfig(
        name="test_concat", image_encoder="features", image_args={"width": 16}, text_args={}, head_args={"dropout": 0.0}
    )
    config = RunConfig(
        data=str(data), output=str(tmp_path / "run"), dataset=dataset, model=model, processor=ProcessorConfig(),
        train=TrainConfig(epochs=6, batch_size=6, lr=1e-2, encoder_lr_scale=1, precision="fp32"),
    )  # fmt: skip
    result = train(config)
    predictor = result.predictor
    assert result.test["accuracy"] == 1.0
    assert predictor.processor.bag_dim == DIM and predictor.model.config["image_args"] == {"dim": DIM, "width": 16}
    array = open_bag(data / "bags/1.npz")
    paths, arrays, empty = predictor.predict(
        [{"bag": data / "bags/1.npz", "age": 31}, {"bag": array, "age": 31}, {"age": 31}]
    )
    assert paths == arrays and paths["label"] == "b" and paths != empty
    wrong = predictor.predict([{"bag": np.ones((2, 3)), "age": 3}])
    assert wrong == [{"error": "the vectors have width 3, expected 6"}]
    assert '"bag": "1.h5"' in (result.best / "README.md").read_text()
    with pytest.raises(ValueError, match="no bags of features"):
        train(RunConfig(**{**vars(config), "output": str(tmp_path / "o"), "data": str(images(tmp_path / "toy")),
                           "dataset": DatasetConfig()}))  # fmt: skip


def images(folder: Path) -> Path:
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    lines = ["image,label,split,text"]
    for i in range(12):
        Image.new("RGB", (40, 40), (20 * i, 250 - 20 * i, 9 * i)).save(folder / "images" / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]},word {i}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["h5", "npz", "safetensors"])
def test_embed_writes_what_bag_column_reads(kind, tmp_path):
    from mmfusion.images.opening import open_image
    from mmfusion.inference import Predictor
    from mmfusion.inference.config import EmbedConfig
    from mmfusion.inference.embedding import embed

    data = images(tmp_path / "data")
    (data / "images" / "4.png").write_bytes(b"no picture")
    torch.manual_seed(0)
    model = mmfusion.create_model("test_image", num_classes=2)
    processor = Processor(labels=["a", "b"], image_size=32)
    saved = Predictor(model, processor).save_pretrained(tmp_path / "model")
    config = EmbedConfig(str(data), str(tmp_path / "bags"), model=f"local-dir:{saved}", format=kind, batch_size=5)
    result = embed(config)
    assert (result.rows, result.unreadable) == (12, 1) and "--dataset.bag_column bag" in result.summary()
    with (result.folder / "bags.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[4]["bag"] == "" and "decoded" in rows[4]["error"]
    assert rows[3]["label"] == "b" and rows[3]["id"] == "3.png"
    pixels = processor(images=[open_image(data / "images" / "3.png")])["pixel_values"]
    with torch.no_grad():
        expected = model.eval().image_tower.backbone(pixels).pooled.numpy()
    np.testing.assert_allclose(open_bag(result.folder / rows[3]["bag"]), expected, atol=2e-3)
    cases = check_images(read_cases(result.folder, DatasetConfig(bag_column="bag")), progress=False)
    assert cases.splits == {"train": 8, "val": 2, "test": 2} and cases.frame["image"].notna().sum() == 11
    with pytest.raises(FileExistsError, match=r"already has bags\.csv"):
        embed(config)


def test_embed_slices_by_a_bare_encoder(tmp_path, monkeypatch):
    import sys

    from mmfusion.inference.config import EmbedConfig
    from mmfusion.inference.embedding import embed

    sys.path.append(str(Path(__file__).parents[1] / "towers"))
    from tiny_encoders import transformers_folder

    data = images(tmp_path / "data")
    rows = (data / "rows.csv").read_text().splitlines()
    lines = [rows[0] + ",study", *(f"{row},s{i // 2 % 4 + 4 * (i % 2)}" for i, row in enumerate(rows[1:]))]
    (data / "rows.csv").write_text("\n".join(lines) + "\n")
    encoder = str(transformers_folder(tmp_path / "vit", "vit"))
    dataset = DatasetConfig(study_column="study")
    result = embed(EmbedConfig(str(data), str(tmp_path / "bags"), encoder=encoder, dataset=dataset))
    assert result.rows == 8 and result.width == 32
    sizes = sorted(len(open_bag(path)) for path in result.folder.glob("*.npz"))
    assert sum(sizes) == 12 and set(sizes) <= {1, 2}
    with pytest.raises(ValueError, match="needs either a trained"):
        EmbedConfig("d", "o")
