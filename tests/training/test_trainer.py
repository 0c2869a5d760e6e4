from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments, set_seed

from mmfusion.evaluation.metrics import classification_metrics, headline
from mmfusion.losses import CrossEntropy
from mmfusion.outputs import FusionOutput
from mmfusion.training.config import TrainConfig
from mmfusion.training.epochs import EpochLog, best_of, should_stop
from mmfusion.training.rows import EpochOrder, Rows
from mmfusion.training.trainer import FusionTrainer, ModelAndLoss


class Points(torch.utils.data.Dataset[dict[str, Any]]):
    """Points of three classes around three corners, which record the epochs set on them."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 3
        self.points = torch.randn(count, 4, generator=generator) / 2 + torch.eye(3, 4)[self.labels] * 2
        self.epochs: list[int] = []
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.seen.append(i)
        return {"pixel_values": self.points[i], "labels": self.labels[i]}


class Model(nn.Module):
    """One layer as the encoder and one as the rest, with ``config`` as a dict like that of a ``FusionModel``."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.dropout, self.head = nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 3)
        self.config = {"num_classes": 3}

    def forward(self, pixel_values: Tensor) -> FusionOutput:
        return FusionOutput(logits=self.head(self.dropout(self.encoder(pixel_values).tanh())))

    def param_groups(
        self, lr: float, weight_decay: float, encoder_lr_scale: float, layer_decay: float
    ) -> list[dict[str, Any]]:
        return [
            {"params": [*self.encoder.parameters()], "lr": lr * encoder_lr_scale, "weight_decay": weight_decay},
            {"params": [*self.head.parameters()], "lr": lr, "weight_decay": 0.0},
        ]


class StepLoss(CrossEntropy):
    """Records the step set on it."""

    def __init__(self) -> None:
        super().__init__()
        self.step = -1
        self.steps: list[int] = []

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        self.steps.append(self.step)
        self.step += 1
        return super().objective(output, labels)


def metrics(labels: Any, logits: Any) -> dict[str, float]:
    return headline(classification_metrics(labels, torch.from_numpy(logits).softmax(-1).numpy(), ["a", "b", "c"]))


def make_trainer(
    folder: Path,
    *,
    model: nn.Module | None = None,
    loss: nn.Module | None = None,
    rows: int = 24,
    validate: bool = True,
    best: list[int] | None = None,
    **train: Any,
) -> FusionTrainer:
    set_seed(0)
    config = TrainConfig(**{"epochs": 2, "batch_size": 8, "lr": 0.01, "metric": "balanced_accuracy", **train})
    folder.mkdir(parents=True, exist_ok=True)
    args = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        use_cpu=True,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        max_grad_norm=config.grad_clip,
        seed=0,
        eval_strategy="epoch" if validate else "no",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        log_level="error",
    )
    best = [] if best is None else best
    opened = Rows(Points(rows, 1), Points(10, 2) if validate else None, EpochOrder(rows, 0), None)
    log = EpochLog(
        folder / "metrics.jsonl",
        config,
        begin_epoch=opened.begin_epoch,
        on_best=lambda record: best.append(record["epoch"]),
    )
    return FusionTrainer(
        model or Model(),
        loss or CrossEntropy(),
        args,
        config=config,
        rows=opened,
        metrics=metrics,
        callbacks=[log],
        on_loss=log.add,
    )


def history(trainer: FusionTrainer) -> list[dict[str, Any]]:
    return next(log.history for log in trainer.callback_handler.callbacks if isinstance(log, EpochLog))


def weights(trainer: FusionTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_loss_falls_and_each_epoch_leaves_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best: list[int] = []
    trainer = make_trainer(tmp_path, epochs=12, lr=0.05, encoder_lr_scale=1.0, best=best)
    trainer.train()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [*range(1, 13)]
    assert [record["step"] for record in records] == [*range(3, 37, 3)]
    assert records[-1]["train_loss"] < 0.3 * records[0]["train_loss"]
    assert records[-1]["accuracy"] >= 0.9
    assert records[-1]["lr"] == 0
    assert {"nll", "macro_auroc", "seconds"} <= records[0].keys()
    assert records == history(trainer)
    assert len(trainer.state.log_history) == 2 * 12 + 1
    assert best[-1] == best_of(records, "balanced_accuracy") + 1
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 12
    assert printed[0].startswith("epoch 1/12  loss ") and "val balanced_accuracy" in printed[0]


def test_the_validation_figures_are_those_of_the_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    rows = Points(10, 2)
    with torch.no_grad():
        logits = trainer.model.model.eval()(rows.points).logits
    expected = nn.functional.cross_entropy(logits, rows.labels).item()
    assert history(trainer)[-1]["nll"] == pytest.approx(expected, rel=1e-5)


def test_the_training_loss_is_the_mean_over_the_steps(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1, lr=1e-12)
    trainer.train()
    rows = Points(24, 1)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(trainer.model.model(rows.points).logits, rows.labels).item()
    assert history(trainer)[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rows", [24, 21])
def test_accumulated_batches_equal_one_large_batch(tmp_path: Path, rows: int) -> None:
    """Also with shorter last batches: 21 rows are 8 + 8 + 5, and (4 + 4) + (4 + 4) + (4 + 1)."""
    whole = make_trainer(tmp_path / "whole", rows=rows, batch_size=8)
    parts = make_trainer(tmp_path / "parts", rows=rows, batch_size=4, gradient_accumulation=2)
    whole.train()
    parts.train()
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-6)
    for a, b in zip(history(parts), history(whole), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-5)


def test_encoder_and_head_have_their_rates_through_warm_up_and_cosine(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lr=0.01, encoder_lr_scale=0.1, weight_decay=0.2, warmup_ratio=0.2)
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    cosine = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * i / 8)).item()) for i in range(8)]
    expected = [0.0, 0.5, *cosine]
    assert [head for _, head in rates] == pytest.approx([0.01 * share for share in expected], abs=1e-9)
    assert [encoder for encoder, _ in rates] == pytest.approx([0.001 * share for share in expected], abs=1e-9)
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.2, 0.0]
    assert isinstance(trainer.optimizer, torch.optim.AdamW)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms = []
    trainer = make_trainer(tmp_path, grad_clip=1e-3, epochs=1, validate=False)
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(nn.utils.get_total_norm([p.grad for p in trainer.model.parameters()]).item())
    )
    trainer.train()
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)


def test_early_stopping_counts_epochs_without_improvement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tmp_path, epochs=9, lr=1e-12, patience=2)
    trainer.train()
    assert len(history(trainer)) == 3
    assert "stopped early: balanced_accuracy did not improve in 2 epochs" in capsys.readouterr().out


def test_best_epoch_and_patience() -> None:
    records = [{"accuracy": value, "nll": value} for value in (0.5, 0.7, 0.7, 0.6)]
    assert best_of(records, "accuracy") == 1
    assert best_of(records, "nll") == 0
    assert best_of([{"train_loss": 1.0}, {"train_loss": 2.0}], "accuracy") == 1
    assert best_of([], "accuracy") is None
    assert should_stop(records, "accuracy", 2)
    assert not should_stop(records, "accuracy", 3)
    assert not should_stop(records, "accuracy", None)


def test_a_state_in_mid_epoch_gives_the_same_end(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", model=Model(dropout=0.5), epochs=3, save_steps=2)
    whole.train()
    states = sorted(path.name for path in (tmp_path / "whole/checkpoints").iterdir())
    assert states == ["checkpoint-8", "checkpoint-9"]
    resumed = make_trainer(tmp_path / "resumed", model=Model(dropout=0.5), epochs=3, save_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoints/checkpoint-8"))
    assert torch.equal(weights(resumed), weights(whole))
    for a, b in zip(history(resumed), history(whole), strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    assert resumed.train_dataset.epochs[0] == 2
    assert len(resumed.train_dataset.seen) == 8


def test_states_load_without_pickle(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).train()
    state = tmp_path / "checkpoints/checkpoint-3"
    assert not (state / "training_args.bin").exists()
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(state / name, weights_only=True)


def test_a_loss_that_counts_steps_is_told_the_optimiser_step(tmp_path: Path) -> None:
    loss = StepLoss()
    make_trainer(tmp_path, loss=loss, epochs=1, batch_size=4, gradient_accumulation=2).train()
    assert loss.steps == [0, 0, 1, 1, 2, 2]


class Explodes(CrossEntropy):
    """Returns NaN at its third call."""

    calls = 0

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        factor = float("nan") if self.calls == 3 else 1.0
        return {"loss": super().objective(output, labels)["loss"] * factor}


class BadGradient(CrossEntropy):
    """A finite loss with an infinite gradient: the square root of zero."""

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": super().objective(output, labels)["loss"] + (output.logits.sum() * 0).sqrt()}


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, loss=Explodes())
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 3: .*smaller train\.lr"):
        trainer.train()
    assert torch.isfinite(weights(trainer)).all()


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_training(tmp_path: Path, grad_clip: float) -> None:
    trainer = make_trainer(tmp_path, loss=BadGradient(), grad_clip=grad_clip)
    with pytest.raises(FloatingPointError, match="gradients are not finite at step 1"):
        trainer.train()
    assert torch.isfinite(weights(trainer)).all()


def test_order_of_the_rows() -> None:
    order = EpochOrder(50, seed=3)
    first = list(order)
    assert sorted(first) == [*range(50)]
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert list(EpochOrder(50, seed=4)) != first


def test_rows_left_out_are_the_last_of_the_order() -> None:
    whole, short = EpochOrder(9, seed=3), EpochOrder(9, seed=3, leave_out=1)
    assert len(short) == 8 and list(short) == list(whole)[:8]


def test_a_state_of_another_model_is_refused() -> None:
    task = ModelAndLoss(Model(), CrossEntropy())
    state = task.state_dict()
    task.load_state_dict(state)
    with pytest.raises(ValueError, match=r"has other weights: model\.other\."):
        task.load_state_dict({**state, "model.other": torch.zeros(1)})


def test_weights_make_classes_equally_frequent() -> None:
    labels = [0] * 900 + [1] * 100
    order = EpochOrder(1000, seed=0, weights=torch.tensor([1 / 900] * 900 + [1 / 100] * 100))
    counts = Counter(labels[i] for epoch in range(20) for i in (order.set_epoch(epoch), *order)[1:])
    assert sum(counts.values()) == 20_000
    assert counts[1] / 20_000 == pytest.approx(0.5, abs=0.02)
