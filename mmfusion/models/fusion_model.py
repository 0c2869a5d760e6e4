"""Model class: towers, fusion block, head, and auxiliary heads if the loss needs them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mmfusion.layers import MissingModality
from mmfusion.lazy import ELSEWHERE
from mmfusion.models import parts
from mmfusion.models.configuration import FusionConfig
from mmfusion.models.freezing import Freezable
from mmfusion.models.optimization import grouped, undecayed
from mmfusion.models.presence import observe
from mmfusion.models.saving import save_pretrained
from mmfusion.models.sides import PooledKeeper, Sides, merged
from mmfusion.outputs import Features, Fused, FusionOutput
from mmfusion.registry import keywords
from mmfusion.task import DEFAULT, task_named
from mmfusion.towers.base import Tower


class FusionModel(Freezable):
    """Multimodal classifier: one tower per modality, a fusion block and a head.

    Every argument is a name or a plain value: ``FusionModel(**model.config)`` rebuilds the architecture.

    Args:
        num_classes: C; 0 returns the fused features as logits.
        image_encoder: timm name, ``hf-hub:org/name`` or folder of the image backbone, ``features`` for bags of feature
            vectors in place of images, or None.
        image_tower: How the backbone is applied (``mmfusion.list_components("image_tower")``).
        image_args: Keywords of the image tower.
        stem: Stem of an image tower that has one (``2.5d`` of ``slices``); None uses the tower's own.
        aggregator: Name of the aggregator of an image tower that has one; None uses the tower's own.
        aggregator_args: Keywords of the aggregator.
        text_encoder: Built-in name, transformers id or folder, or None.
        text_tower: Name of the text tower (``mmfusion.list_components("text_tower")``).
        text_args: Keywords of the text tower.
        table_encoder: Table tower (``mmfusion.list_components("table_tower")``), or None. ``config`` contains it and
            its keywords only if it is not None.
        table_args: Keywords of the table tower: ``numeric``, the number of numeric columns, ``categories``, the number
            of values of each categorical column, and the tower's own.
        fusion: Name of the fusion block; None if all towers are on one side. The image is one side; text and columns
            form the other (clinical) side.
        fusion_args: Keywords of the fusion block.
        dim: Shared width that the fusion block projects to; None leaves it to the block.
        head: Name of the head.
        head_args: Keywords of the head.
        aux_heads: Add a head for each side, as the ``mp`` loss needs; ``text_logits`` are those of the clinical side.
        aux_hidden: Hidden width of the auxiliary heads.
        modality_dropout: Probability that a training sample loses one of its modalities, in [0, 1).
        towers: Towers of further modalities: registered name -> keywords.
        task: Task (``mmfusion.list_components("task")``); ``num_classes`` is its number of classes, labels, grades or
            targets. ``config`` contains it only if it is not ``multiclass``.
        task_args: ``form``, the meaning of the outputs (``corn`` or ``cumulative`` of ``ordinal``); None uses the
            task's default.
        encoder_weights: ``default`` initializes the towers with pretrained weights; or a dict, modality -> ``default``
            or None. Not part of ``config``.

    Attributes:
        config: The arguments, with the towers' configurations inlined.
        task: The :class:`~mmfusion.task.Task` of the outputs.
        towers: modality -> tower. Each is also an attribute, such as ``image_tower`` (None if there is none), and so is
            the learned token for samples without the modality, such as ``image_missing``.
        num_features: Width of what the head classifies.
        pretrained_cfg: Input size, normalization and origin, as in timm.
        frozen: Modules that :meth:`freeze_encoders`, :meth:`freeze_stages` and :meth:`freeze_norm` froze.
        held: Parameters that :meth:`hold_encoders` freezes temporarily.
        origins: modality -> source and license of its encoder's initial weights.

    Raises:
        ValueError: Incompatible parts, an unknown name, or a value out of range.
        TypeError: A keyword that the chosen part does not accept, or a part without a required attribute.
    """

    #: for transformers' Trainer: the loss is the mean over the batch and takes no further arguments.
    accepts_loss_kwargs = False

    image_tower: Any
    image_missing: Any
    text_tower: Any
    text_missing: Any
    table_tower: Any
    table_missing: Any

    def __init__(
        self,
        num_classes: int = 7,
        *,
        image_encoder: str | None = None,
        image_tower: str = "single",
        image_args: dict[str, Any] | None = None,
        stem: str | None = None,
        aggregator: str | None = None,
        aggregator_args: dict[str, Any] | None = None,
        text_encoder: str | None = None,
        text_tower: str = "transformer",
        text_args: dict[str, Any] | None = None,
        table_encoder: str | None = None,
        table_args: dict[str, Any] | None = None,
        fusion: str | None = None,
        fusion_args: dict[str, Any] | None = None,
        dim: int | None = None,
        head: str = "mlp",
        head_args: dict[str, Any] | None = None,
        aux_heads: bool = False,
        aux_hidden: int = 512,
        modality_dropout: float = 0.0,
        towers: dict[str, dict[str, Any]] | None = None,
        task: str = DEFAULT,
        task_args: dict[str, Any] | None = None,
        encoder_weights: parts.EncoderWeights = None,
    ) -> None:
        given = locals()
        super().__init__()
        config: dict[str, Any] = {name: given[name] for name in ("num_classes", *model_keywords())}
        for name in parts.NESTED:
            config[name] = dict(config[name] or {})
        parts.settle_features(config)
        parts.check_combination(config, encoder_weights)
        self.image_tower = self.text_tower = self.table_tower = None
        self.image_missing = self.text_missing = self.table_missing = None
        self.task = task_named(task, **config["task_args"])
        self.modalities: list[str] = []
        for tower in parts.build_towers(config, encoder_weights):
            self.modalities.append(tower.modality)
            setattr(self, f"{tower.modality}_tower", tower)
            missing = MissingModality(tower.num_features, tower.level_dims, tower.streams)
            setattr(self, f"{tower.modality}_missing", missing)
        self.sides = Sides(self.towers)
        self.fusion: Any = parts.build_fusion(config, *self.sides.widths) if config["fusion"] is not None else None
        classified: Any = self.sides.widths[0] if self.fusion is None else self.fusion
        self.num_features: int = classified.num_features
        # read by earlier versions too
        absent = [] if config["towers"] else ["towers"]
        absent += [] if table_encoder is not None else ["table_encoder", "table_args"]
        absent += [] if task != DEFAULT else ["task"]
        absent += [] if config["task_args"] else ["task_args"]
        for name in absent:
            del config[name]
        self.config = FusionConfig(config)
        self.architecture: str | None = None
        self.preprocessing: dict[str, Any] | None = None  # of the processor, with timm's names; None: it has none
        self.fitted: list[str] = []  # entries of the saved model that it came from, which saving it alone drops
        self.origins = {modality: dict(tower.origin) for modality, tower in self.towers.items() if tower.origin}
        self._build_heads(num_classes)

    @property
    def towers(self) -> dict[str, Tower]:
        """modality -> tower: image, text, table, further ones."""
        return {modality: getattr(self, f"{modality}_tower") for modality in self.modalities}

    @property
    def num_classes(self) -> int:
        """C."""
        return self.config["num_classes"]

    @property
    def modality_dropout(self) -> float:
        """Probability that a training sample loses one of its modalities."""
        return self.config["modality_dropout"]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the floating-point weights."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Input size, normalization, interpolation, crop and tag, as in timm; architecture and number of classes.

        Of a trained model, or one made for a processor, what it was trained on; else of the image encoder.
        """
        known = self.image_tower.pretrained_cfg if self.image_tower is not None else {}
        cfg = dict(known if self.preprocessing is None else self.preprocessing)
        return cfg | {"architecture": self.architecture, "num_classes": self.num_classes}

    #: timm's earlier name.
    default_cfg = pretrained_cfg

    @property
    def image_layout(self) -> str | None:
        """Layout of a sample's image: ``image``, ``slices``, ``views`` or ``bags``; None without an image tower."""
        return None if self.image_tower is None else self.image_tower.layout

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head and the auxiliary heads with new ones, in the model's mode and on its device and dtype.

        Args:
            num_classes: C; 0 removes the heads.
            global_pool: Argument of timm's method; must be None, because the towers do the pooling.

        Raises:
            TypeError: ``global_pool`` is not None.
        """
        if global_pool is not None:
            raise TypeError(f"global_pool={global_pool!r}: the towers pool; set image_args or text_args instead.")
        like = next(p for part in (self.head, self) for p in part.parameters() if p.is_floating_point())
        self.fitted = []
        self._build_heads(num_classes)
        for part in (self.head, self.aux_heads, self.link):
            if part is not None:
                part.to(like.device, like.dtype).train(self.training)

    def _build_heads(self, num_classes: int) -> None:
        if num_classes < 0:
            raise ValueError(f"num_classes={num_classes} is negative.")
        if 0 < num_classes < self.task.fewest:
            raise ValueError("num_classes=1 gives every case the probability 1; use num_classes=2 for yes and no.")
        self.config["num_classes"] = num_classes
        sized = {**self.config, "num_classes": self.task.width(num_classes) if num_classes else 0}
        self.head = parts.build_head(sized, self.num_features, self.fusion, self.sides.widths[0])
        self.aux_heads = parts.build_aux_heads(sized, self.fusion)
        self.link = self.task.link(num_classes) if num_classes else None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the towers."""
        for tower in self.towers.values():
            tower.set_grad_checkpointing(enable)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile in place, like ``nn.Module.compile``.

        Compiled code ignores hooks registered later, so the hook ``pooled_keeper``, which records the pooled features
        of a batch, is registered here.
        """
        if not hasattr(self, "pooled_keeper"):
            self.pooled_keeper = PooledKeeper()
            self.sides.register_forward_pre_hook(self.pooled_keeper)
        super().compile(*args, **kwargs)

    def forward_features(self, *args: Any, **inputs: Any) -> Fused:
        """Towers and fusion block; arguments as in :meth:`forward`."""
        return self.fuse(self.tower_features(*args, **inputs))

    def tower_features(self, *args: Any, **inputs: Any) -> dict[str, Features]:
        """Features by modality, with the learned token where a sample lacks it; arguments as in :meth:`forward`."""
        inputs |= dict(zip(STANDARD_INPUTS[: len(args)], args, strict=True))
        parts.check_inputs(inputs, self.towers, STANDARD_INPUTS)
        tokens = {m: getattr(self, f"{m}_missing") for m in self.modalities}
        return observe(self.towers, tokens, inputs, training=self.training, dropout=self.modality_dropout)

    def fuse(self, features: Mapping[str, Features]) -> Fused:
        """Result of :meth:`tower_features` -> input of the head."""
        return parts.fuse(self.fusion, self.config["fusion"], self.sides(features))

    def forward_head(self, fused: Fused, pre_logits: bool = False) -> Tensor:
        """``Fused`` -> logits (B, C), or with ``pre_logits`` the fused features (B, num_features)."""
        if pre_logits or self.num_classes == 0:
            return fused.pooled
        logits = self._answered(self.head(fused)).logits
        assert logits is not None
        return logits

    def _answered(self, output: FusionOutput) -> FusionOutput:
        """A head's output, with the fields that the task adds."""
        if self.link is not None:
            output.logits = self.link(output.logits)
        return self.task.shaped(output)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_present: Tensor | None = None,
        text_present: Tensor | None = None,
        slice_mask: Tensor | None = None,
        view_mask: Tensor | None = None,
        roi_values: Tensor | None = None,
        image_features: dict[str, Tensor] | None = None,
        text_features: dict[str, Tensor] | None = None,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        table_present: Tensor | None = None,
        table_features: dict[str, Tensor] | None = None,
        labels: Tensor | None = None,
        **further: Any,
    ) -> FusionOutput:
        """Classify a batch.

        A model without a tower for one of the named inputs ignores it.

        Args:
            pixel_values: (B, 3, H, W) normalized, (B, S, 3, H, W) slices or (B, V, 3, H, W) views; None when no sample
                has an image.
            input_ids: (B, L) int64; None when no sample has text.
            attention_mask: (B, L), 1 = real token; None means all are. A row of zeros is a sample without text.
            image_present: (B,) bool, False = this sample has no image.
            text_present: (B,) bool, False = this sample has no text.
            slice_mask: (B, S) bool, True = this slice is present; None means all are. A row without any True is a
                sample without an image.
            view_mask: (B, V) bool, True = this view is present; None means all are.
            roi_values: (B, 3, h, w) normalized region of interest; None uses the tower's default.
            image_features: Result of ``image_tower.encode``, computed in advance (with frozen encoders); replaces all
                image inputs except ``image_present``.
            text_features: Result of ``text_tower.encode``; replaces all text inputs except ``text_present``.
            numeric_values: (B, C) numeric columns in the user's units, NaN = missing cell; None when no sample has
                columns, or the model has no numeric ones.
            category_ids: (B, K) int64, 0 = missing cell, 1 = value not seen in training; None when no sample has
                columns, or the model has no categorical ones.
            table_present: (B,) bool, False = this sample has no columns. So does a row whose cells are all missing.
            table_features: Result of ``table_tower.encode``; replaces all table inputs except ``table_present``.
            labels: (B,) int64 classes; if given, ``loss`` is filled. No other output depends on them. For other tasks
                as the processor returns them: (B, C) labels, NaN for unknown, or (B, targets) numbers.
            further: Inputs of further towers, and their ``<modality>_present`` and ``<modality>_features``.

        Raises:
            ValueError: None of the model's modalities was given, shapes do not match, or labels were given to a model
                without classes.
            TypeError: A further input that no tower reads.
        """
        # fmt: off
        fused = self.forward_features(
            pixel_values, input_ids, attention_mask, image_present, text_present, slice_mask, view_mask, roi_values,
            image_features, text_features, numeric_values, category_ids, table_present, table_features, **further
        )
        # fmt: on
        if self.num_classes == 0:
            if labels is not None:
                raise ValueError("The model has num_classes=0 and labels were given; model.reset_classifier(C) first.")
            output = FusionOutput(logits=fused.pooled)
        else:
            width = self.task.width(self.num_classes)
            output = self._answered(parts.checked_output(self.head(fused), self.head, self.config["head"], width))
        aux = self.aux_heads
        return FusionOutput(
            loss=None if labels is None else self.task.plain_loss()(output, labels)["loss"],
            logits=output.logits,
            log_scales=output.log_scales,
            image_logits=None if aux is None else self._answered(aux["image"](fused.image)).logits,
            text_logits=None if aux is None else self._answered(aux["text"](fused.text)).logits,
            features=fused.pooled,
            attentions=merged(fused.attentions, output.attentions),
            gates=merged(fused.gates, output.gates),
            router_probs=output.router_probs,
            aux_loss=output.aux_loss,
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: those that a module lists in ``no_weight_decay()``, as in timm."""
        return undecayed(self)

    def param_groups(
        self, lr: float, weight_decay: float = 0.05, encoder_lr_scale: float = 0.1, layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: encoders at ``lr * encoder_lr_scale``, the rest at ``lr``.

        Towers that are always trained from scratch, such as those for columns, belong to the rest.
        Parameters of one dimension (biases, norms, the tokens of missing modalities) and those of
        :meth:`no_weight_decay` (position embeddings, state-space dynamics) have no weight decay.

        Args:
            lr: Learning rate of everything but the encoders.
            weight_decay: Weight decay of parameters that have one.
            encoder_lr_scale: Learning rate of the encoders' last layers, as a share of ``lr``.
            layer_decay: Factor on the learning rate from each layer of an encoder to the layer below it (BEiT; Bao et
                al. 2022), with timm's layers.
        """
        rates = {"lr": lr, "weight_decay": weight_decay, "encoder_lr_scale": encoder_lr_scale}
        return grouped(self, self.encoders, **rates, layer_decay=layer_decay)

    @classmethod
    def from_pretrained(cls, name: object, *args: Any, **options: Any) -> NoReturn:
        """Raise TypeError with the call that loads a saved model."""
        raise TypeError(f"FusionModel.from_pretrained({name!r}): {ELSEWHERE['AutoModel']}.")

    def save_pretrained(self, folder: str | os.PathLike[str], processor: Any | None = None) -> Path:
        """Write the model's folder; see :func:`mmfusion.save_pretrained`."""
        return save_pretrained(self, folder, processor)


def model_keywords() -> list[str]:
    """Keywords that ``create_model`` passes on."""
    return [name for name in keywords(FusionModel) if name not in ("num_classes", "encoder_weights")]


#: inputs of :meth:`FusionModel.forward` that towers read, in order.
STANDARD_INPUTS = tuple(inspect.signature(FusionModel.forward).parameters)[1 : -len(("labels", "further"))]
