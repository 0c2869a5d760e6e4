"""Saving models to folders and loading them."""

from __future__ import annotations

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config
from torch import nn

import mmfusion
from mmfusion.data import Processor
from mmfusion.models import save_model


class TestArtifact:
    @pytest.fixture
    def folder(self, tmp_path):
        torch.manual_seed(0)
        return save_model(mmfusion.create_model("test_mibf", num_classes=3), tmp_path / "m")

    def load(self, folder, **kwargs):
        return mmfusion.create_model(f"local-dir:{folder}", **kwargs)

    def test_another_number_of_classes_gets_a_new_head_only(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = self.load(folder, num_classes=3)
            assert self.load(folder, num_classes=0).num_classes == 0
        with pytest.warns(UserWarning, match="saved with 3 classes, but num_classes=5: the head is new"):
            again = self.load(folder, num_classes=5)
        assert again.num_classes == 5 and again.head.fc.out_features == 5
        own, new = model.state_dict(), again.state_dict()
        assert all(torch.equal(v, new[k]) for k, v in own.items() if not k.startswith(("head.", "aux_heads.")))

    def test_without_a_processor_images_are_made_as_for_the_encoder(self, tmp_path):
        model = mmfusion.create_model("test_image", num_classes=3)
        found = resolve_model_data_config(self.load(save_model(model, tmp_path / "m")))
        assert found == resolve_model_data_config(model) and found["crop_pct"] == 0.95

    @pytest.mark.parametrize("change", ["missing", "unexpected", "reshaped"])
    def test_tensors_that_do_not_fit_are_named(self, folder, change):
        state = load_file(folder / "model.safetensors")
        name = "fusion.image_proj.weight"
        if change == "missing":
            del state[name]
        elif change == "unexpected":
            name = "extra.weight"
            state[name] = torch.zeros(1)
        else:
            state[name] = state[name][:, 1:].contiguous()
        save_file(state, folder / "model.safetensors")
        with pytest.raises(ValueError, match=name):
            self.load(folder)

    def test_damage_is_told(self, folder):
        weights = (folder / "model.safetensors").read_bytes()
        flipped = bytearray(weights)
        flipped[-9] ^= 1
        (folder / "model.safetensors").write_bytes(flipped)
        with pytest.raises(ValueError, match=r"is damaged \(not the file that config\.json was written with\)"):
            self.load(folder)
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            self.load(folder)
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
            self.load(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))
        with pytest.raises(ValueError, match="format_version 99"):
            self.load(folder)
        (folder / "config.json").write_text("{")
        with pytest.raises(ValueError, match="not readable JSON"):
            self.load(folder)

    def test_a_run_folder_stands_for_its_best_model(self, folder, tmp_path):
        (tmp_path / "run").mkdir()
        folder.rename(tmp_path / "run" / "best")
        assert self.load(tmp_path / "run").architecture == "test_mibf"

    def test_overrides_beat_what_is_stored(self, folder):
        assert self.load(folder, modality_dropout=0.25).modality_dropout == 0.25
        with pytest.raises(TypeError, match="did you mean 'modality_dropout'"):
            self.load(folder, modality_drop=0.25)
        with pytest.raises(ValueError, match=r"fusion\."):
            self.load(folder, fusion="gated")

    @pytest.mark.usefixtures("no_network")
    def test_nothing_is_fetched(self, folder):
        self.load(folder)
        mmfusion.create_model("mibf_lite0")

    def test_the_card_tells_what_the_model_is_and_leaves_other_hands_alone(self, folder):
        model = self.load(folder)
        save_model(model, folder, metrics={"accuracy": 0.8125, "n": 2002, "split": "test"})
        card = (folder / "README.md").read_text()
        assert "`test_mibf`" in card and "| accuracy | 0.8125 |" in card and "On `test`, 2,002 rows" in card
        (folder / "README.md").write_text("mine")
        save_model(model, folder)
        assert (folder / "README.md").read_text() == "mine"

    def test_the_head_of_the_card_is_what_the_hub_reads(self, folder):
        metrics = {
            "accuracy": 0.8125,
            "n": 16,
            "split": "test",
            "classes": ["a", "b", "c"],
            "confusion_matrix": [[3, 1, 0], [0, 7, 0], [2, 0, 3]],
        }
        about = {"dataset": "HAM10000", "license": "cc-by-nc-4.0", "intended_use": "To teach.", "limits": "Few rows."}
        save_model(self.load(folder), folder, metadata={"card": about}, metrics=metrics)
        card = (folder / "README.md").read_text()
        _, head, body = card.split("---\n", 2)
        head = yaml.safe_load(head)
        assert head["license"] == "cc-by-nc-4.0" and head["pipeline_tag"] == "image-classification"
        (entry,) = head["model-index"]
        (result,) = entry["results"]
        assert result["dataset"] == {"name": "HAM10000", "type": "ham10000", "split": "test"}
        assert [(m["type"], m["value"]) for m in result["metrics"]] == [("accuracy", 0.8125)]
        for line in ("- Data set: HAM10000", "To teach. For research.", "Few rows. This is not a medical device"):
            assert line in body
        assert "| | a | b | c |\n|---|---|---|---|\n| **a** | 3 | 1 | 0 |\n| **b** | 0 | 7 | 0 |" in body
        assert 'predictor.predict([{"image": "a.jpg", "text": "..."}])' in body

    def test_a_text_encoder_s_folder_does_not_travel(self, tmp_path):
        tiny = mmfusion.create_model("test_text")
        tiny.text_tower.backbone.save_pretrained(tmp_path / "encoder")
        # it has the name of a built-in encoder with another pooling
        (tmp_path / "encoder").rename(tmp_path / "minilm")
        model = mmfusion.create_model("test_text", text_encoder=str(tmp_path / "minilm")).eval()
        assert model.text_tower.pooling == "cls"
        saved = save_model(model, tmp_path / "m")
        (tmp_path / "minilm").rename(tmp_path / "gone")
        assert str(tmp_path) not in (saved / "config.json").read_text()
        again, ids = self.load(saved), torch.ones(1, 4, dtype=torch.long)
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)

    def test_the_config_says_what_pictures_the_model_saw(self, tmp_path):
        model = mmfusion.create_model("test_image", num_classes=2)
        Processor(labels=["a", "b"], image_size=24, mean=(0.1, 0.2, 0.3)).save_pretrained(tmp_path)
        config = json.loads((save_model(model, tmp_path) / "config.json").read_text())
        assert config["input_size"] == [3, 24, 24] and config["mean"] == [0.1, 0.2, 0.3]

    def test_whoever_may_read_the_config_may_read_the_weights(self, folder):
        assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode

    def test_models_load_side_by_side(self, folder):
        """Modules that another thread builds at the same time have their weights."""
        expected = self.load(folder).state_dict()
        wrong, done = [], threading.Event()

        def build():
            while not done.is_set():
                if nn.Linear(2, 2).weight.is_meta:
                    wrong.append("meta")

        builder = threading.Thread(target=build)
        builder.start()
        with ThreadPoolExecutor(4) as pool:
            models = list(pool.map(lambda _: self.load(folder), range(12)))
        done.set()
        builder.join()
        assert not wrong and not nn.Linear(2, 2).weight.is_meta
        for model in models:
            assert all(torch.equal(x, expected[name]) for name, x in model.state_dict().items())

    def test_weights_are_the_model_s_own_wherever_they_lie_in_the_file(self, tmp_path):
        """Results are bit-equal: matrix kernels may differ at addresses that are not a multiple of 64."""
        folder = save_model(mmfusion.create_model("test_text", num_classes=3), tmp_path)
        path, expected = folder / "model.safetensors", self.load(folder)
        content, config = path.read_bytes(), json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "weights_sha256": None}))
        (folder / "files.json").unlink()
        length = int.from_bytes(content[:8], "little")
        weights, ids = content[8 + length :], torch.arange(5, 13).view(2, 4)
        with torch.inference_mode():
            logits = expected(input_ids=ids).logits
        for offset in range(64):
            header = json.loads(content[8 : 8 + length]) | {"__metadata__": {"padding": ""}}
            header["__metadata__"]["padding"] = "x" * ((offset - 8 - len(json.dumps(header))) % 64)
            text = json.dumps(header).encode()
            assert (8 + len(text)) % 64 == offset
            path.write_bytes(len(text).to_bytes(8, "little") + text + weights)
            found = self.load(folder)
            with path.open("r+b") as file:  # in place, under a running process
                file.seek(8 + len(text))
                file.write(bytes(len(weights)))
            for name, tensor in found.state_dict().items():
                assert tensor.data_ptr() % 64 == 0 and torch.equal(tensor, expected.state_dict()[name]), (offset, name)
            with torch.inference_mode():
                assert torch.equal(found(input_ids=ids).logits, logits), offset

    def test_pickled_weights_are_not_read(self, folder):
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is pickle, which may run any code"):
            self.load(folder)

    def test_keywords_are_laid_over_the_stored_ones(self, folder):
        again = self.load(folder, text_args={"pooling": "mean"}).text_tower
        assert again.pooling == "mean" and again.config["vocab_size"] == 128

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"encoder_weights": "default"}, "has encoder_weights"),
            ({"text_args": {}}, r"text_args\.config"),
            ({"image_args": {"checkpoint_path": "weights.pth"}}, "takes no checkpoint_path"),
            ({"image_args": {"checkpoint_path": "/etc/passwd"}}, "image_args.checkpoint_path is '/etc/passwd', a path"),
            ({"text_encoder": "../secret"}, r"model\.text_encoder is '\.\./secret', a path outside its folder"),
            ({"text_encoder": r"C:\secret"}, "a path outside its folder"),
            ({"image_encoder": "~/secret"}, "a path outside its folder"),
            (
                {"text_args": {"config": {"model_type": "bert", "attn_implementation": "org/kernel"}}},
                "could fetch code",
            ),
            (
                {"text_args": {"config": {"model_type": "bert", "auto_map": {}}}},
                "has 'auto_map', which could fetch code",
            ),
            ({"image_encoder": "hf-hub:org/name"}, "lacks the configuration of its image encoder"),
        ],
    )
    def test_a_config_may_not_look_elsewhere(self, folder, change, words):
        config = json.loads((folder / "config.json").read_text())
        config["model"] |= change
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "files.json").unlink()
        with pytest.raises((ValueError, TypeError), match=words):
            self.load(folder)


def test_weights_saved_in_half_precision_are_computed_with_in_full(tmp_path):
    model = mmfusion.create_model("test_mibf", num_classes=3)
    save_model(model, tmp_path)
    full, state = (tmp_path / "model.safetensors").stat().st_size, model.state_dict()
    save_model(model, tmp_path, dtype=torch.float16)
    half = load_file(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * full
    loaded = mmfusion.create_model(f"local-dir:{tmp_path}")
    for name, x in loaded.state_dict().items():
        assert x.dtype == state[name].dtype and x.device.type == "cpu"
        assert torch.equal(x, half[name].to(x.dtype)), name
    assert all(p.requires_grad for p in loaded.parameters())
