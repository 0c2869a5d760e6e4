"""The one model class: towers, fusion block, head, and auxiliary heads where the loss wants them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.layers import MissingModality
from mmfusion.outputs import Features, Fused, FusionOutput


class FusionModel(nn.Module):
    """Image tower and text tower, fused and classified. Either tower may be absent.

    Every argument is a name or a plain value: ``FusionModel(**model.config)`` rebuilds the architecture.

    Args:
        num_classes: C; 0 returns the fused features as logits.
        image_encoder: timm name of the image backbone, or None.
        image_tower: how the backbone is applied (``mmfusion.list_components("image_tower")``).
        image_args: keywords of the image tower.
        stem: of an image tower that has one (``2.5d`` of ``slices``); None takes the tower's own.
        aggregator: name of the aggregator of an image tower that has one; None takes the tower's own.
        aggregator_args: its keywords.
        text_encoder: built-in name, transformers id or folder, or None.
        text_tower: kind of text tower.
        text_args: keywords of the text tower.
        fusion: name of the fusion block; None with one tower.
        fusion_args: its keywords.
        dim: shared width that the fusion block projects to; None leaves it to the block.
        head: name of the head.
        head_args: its keywords.
        aux_heads: image-only and text-only heads, which the ``mp`` loss needs.
        aux_hidden: hidden width of those heads.
        modality_dropout: probability that a training sample loses one of its modalities, in [0, 1).
        encoder_weights: ``default`` starts the towers from pretrained weights. Not part of ``config``.

    Attributes:
        config: the arguments, tower configurations inlined.
        num_features: width of what the head classifies.
        pretrained_cfg: input size, normalisation and origin, as in timm.
        frozen: backbones that :meth:`freeze_encoders` froze.

    Raises:
        ValueError: parts that do not go together, an unknown name, or a value out of range.
        TypeError: a keyword that the chosen part does not take.
    """

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
        fusion: str | None = None,
        fusion_args: dict[str, Any] | None = None,
        dim: int | None = None,
        head: str = "mlp",
        head_args: dict[str, Any] | None = None,
        aux_heads: bool = False,
        aux_hidden: int = 512,
        modality_dropout: float = 0.0,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        if image_encoder is None and text_encoder is None:
            raise ValueError("A model needs an image_encoder or a text_encoder.")
        if (fusion is None) == (image_encoder is not None and text_encoder is not None):
            raise ValueError(
                f"fusion={fusion!r} with image_encoder={image_encoder!r} and text_encoder={text_encoder!r}: "
                "a fusion block needs both towers, and both towers need one."
            )
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout={modality_dropout} is not in [0, 1).")
        if aux_heads and fusion is None:
            raise ValueError(
                "aux_heads=True needs an image tower and a text tower; a model of one modality has no other."
            )
        absent: list[tuple[str, Any, Any]] = [
            ("image_args", image_encoder, image_args),
            ("text_args", text_encoder, text_args),
        ]
        absent += [
            ("fusion_args", fusion, fusion_args),
            ("dim", fusion, dim),
            ("modality_dropout", fusion, modality_dropout),
        ]
        for keyword, part, value in absent:
            if part is None and value:
                raise TypeError(f"{keyword}={value!r} is for a part that this model does not have.")
        if encoder_weights not in (None, "default"):
            raise ValueError(f"encoder_weights={encoder_weights!r} is not one of None, 'default'.")
        if image_encoder is None and (stem or aggregator or aggregator_args):
            raise ValueError(f"stem={stem!r} and aggregator={aggregator!r} are parts of an image tower; there is none.")

        image_args, text_args, head_args = dict(image_args or {}), dict(text_args or {}), dict(head_args or {})
        fusion_args = dict(fusion_args or {})
        num_levels = 0
        if fusion is not None and getattr(registry.get("fusion", fusion), "reads_levels", False):
            num_levels = int(fusion_args.get("num_levels", 3))
        tower_args: dict[str, Any] = {"weights": encoder_weights} | ({"num_levels": num_levels} if num_levels else {})

        self.image_tower: Any = None
        self.text_tower: Any = None
        self.image_missing: Any = None
        self.text_missing: Any = None
        if image_encoder is not None:
            own = _given(stem=stem, aggregator=aggregator, aggregator_args=aggregator_args)
            _check_taken(image_tower, own)
            self.image_tower = registry.create(
                "image_tower", image_tower, image_encoder, **tower_args, **(image_args | own)
            )
            self.image_missing = MissingModality(
                self.image_tower.num_features, self.image_tower.level_dims, getattr(self.image_tower, "streams", None)
            )
        if text_encoder is not None:
            self.text_tower = registry.create("text_tower", text_tower, text_encoder, **tower_args, **text_args)
            self.text_missing = MissingModality(self.text_tower.num_features, self.text_tower.level_dims)
            text_args |= self.text_tower.resolved
            text_args.pop("vocab_size", None)

        self.fusion: Any = None
        if fusion is not None:
            image_dim, text_dim = self.image_tower.num_features, self.text_tower.num_features
            width: dict[str, Any] = {} if dim is None else {"dim": dim}
            level_dims = {
                "image_level_dims": self.image_tower.level_dims,
                "text_level_dims": self.text_tower.level_dims,
            }
            taken = registry.keywords(registry.get("fusion", fusion))
            width |= {name: list(dims) for name, dims in level_dims.items() if name in taken}
            self.fusion = registry.create(
                "fusion", fusion, **({"image_dim": image_dim, "text_dim": text_dim} | width | fusion_args)
            )
            self.num_features = int(getattr(self.fusion, "num_features", dim or image_dim))
            self._side_dims = getattr(self.fusion, "side_dims", (image_dim, text_dim))
        else:
            self.num_features = int((self.image_tower or self.text_tower).num_features)
            self._side_dims = (self.num_features, self.num_features)

        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "image_encoder": image_encoder,
            "image_tower": image_tower,
            "image_args": image_args,
            "stem": stem,
            "aggregator": aggregator,
            "aggregator_args": aggregator_args,
            "text_encoder": text_encoder,
            "text_tower": text_tower,
            "text_args": text_args,
            "fusion": fusion,
            "fusion_args": fusion_args,
            "dim": dim,
            "head": head,
            "head_args": head_args,
            "aux_heads": aux_heads,
            "aux_hidden": aux_hidden,
            "modality_dropout": modality_dropout,
        }
        self.architecture: str | None = None
        self.frozen: list[nn.Module] = []
        self.reset_classifier(num_classes)

    # -- what timm users expect ------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """C."""
        return self.config["num_classes"]

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Input size, normalisation, interpolation and crop of the image tower, the architecture and the classes."""
        cfg = dict(self.image_tower.pretrained_cfg) if self.image_tower is not None else {}
        return cfg | {"architecture": self.architecture, "num_classes": self.num_classes}

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head (and the auxiliary heads) by fresh ones for another number of classes; 0 removes them."""
        if num_classes < 0:
            raise ValueError(f"num_classes={num_classes} is negative.")
        self.config["num_classes"] = num_classes
        self.head: nn.Module = nn.Identity()
        self.aux_heads: nn.ModuleDict | None = None
        if num_classes == 0:
            return
        self.head = registry.create(
            "head",
            self.config["head"],
            in_features=self.num_features,
            num_classes=num_classes,
            **(self._head_widths() | self.config["head_args"]),
        )
        if self.config["aux_heads"]:
            hidden = self.config["aux_hidden"]
            self.aux_heads = nn.ModuleDict(
                {
                    side: registry.create(
                        "head", "mlp", in_features=width, num_classes=num_classes, hidden_features=hidden, dropout=0.0
                    )
                    for side, width in zip(("image", "text"), self._side_dims, strict=True)
                }
            )

    def _head_widths(self) -> dict[str, int]:
        """Widths of tokens and streams, for a head that reads them, where they differ from ``num_features``."""
        offered = {
            "token_features": getattr(self.fusion, "token_features", None),
            "stream_features": getattr(self.image_tower, "stream_features", None),
        }
        taken = registry.keywords(registry.get("head", self.config["head"]))
        return {name: width for name, width in offered.items() if width is not None and name in taken}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the towers."""
        for tower in self._towers():
            tower.set_grad_checkpointing(enable)

    @property
    def image_layout(self) -> str | None:
        """What ``pixel_values`` holds per sample: ``image``, ``slices`` or ``views``; None without an image tower."""
        return None if self.image_tower is None else getattr(self.image_tower, "layout", "image")

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward_features(
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
    ) -> Fused:
        """Towers and fusion block; arguments as in :meth:`forward`."""
        if image_features is None and text_features is None:
            extra = _given(slice_mask=slice_mask, view_mask=view_mask, roi_values=roi_values)
            image, text = self._encode(pixel_values, input_ids, attention_mask, image_present, text_present, extra)
        else:
            image, text = self._assemble(image_features, text_features, image_present, text_present)
        if self.fusion is not None:
            fused: Fused = self.fusion(image, text)
            fused.image = image.pooled if fused.image is None else fused.image
            fused.text = text.pooled if fused.text is None else fused.text
        else:
            features = image if image is not None else text
            fused = Fused(pooled=features.pooled, tokens=features.tokens, mask=features.mask)
        if image is not None:
            fused.streams = image.streams
            fused.gates = {**(image.gates or {}), **(fused.gates or {})} or None
            fused.attentions = {**(image.attentions or {}), **(fused.attentions or {})} or None
        return fused

    def forward_head(self, fused: Fused, pre_logits: bool = False) -> Tensor:
        """``Fused`` -> logits (B, C), or what is classified (B, num_features)."""
        if pre_logits or self.num_classes == 0:
            assert fused.pooled is not None
            return fused.pooled
        return self.head(fused).logits

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
    ) -> FusionOutput:
        """Classify a batch. Inputs of a modality that the model does not have, or that its tower does not know, are
        not read.

        Args:
            pixel_values: (B, 3, H, W) normalised, (B, S, 3, H, W) slices or (B, V, 3, H, W) views; None when no sample
                has an image.
            input_ids: (B, L) int64; None when no sample has text.
            attention_mask: (B, L), 1 = real token; None means all are. A row of zeros is a sample without text.
            image_present: (B,) bool, False = this sample has no image.
            text_present: (B,) bool, False = this sample has no text.
            slice_mask: (B, S) bool, True = this slice is present; None means all are. A row without any is a sample
                without an image.
            view_mask: (B, V) bool, likewise.
            roi_values: (B, 3, h, w) normalised region of interest; None leaves it to the tower.
            image_features: what ``image_tower.encode`` gave, computed before: with frozen encoders, once and for all.
                In place of all the inputs above but the two of presence.
            text_features: likewise, of the text tower.

        Raises:
            ValueError: no modality that the model has was given, or shapes that do not fit.
        """
        fused = self.forward_features(
            pixel_values,
            input_ids,
            attention_mask,
            image_present,
            text_present,
            slice_mask,
            view_mask,
            roi_values,
            image_features,
            text_features,
        )
        if self.num_classes == 0:
            return FusionOutput(
                logits=fused.pooled, features=fused.pooled, attentions=fused.attentions, gates=fused.gates
            )
        output: FusionOutput = self.head(fused)
        gates = {**(fused.gates or {}), **(output.gates or {})}
        attentions = {**(fused.attentions or {}), **(output.attentions or {})}
        aux = self.aux_heads
        return FusionOutput(
            logits=output.logits,
            image_logits=None if aux is None else aux["image"](fused.image).logits,
            text_logits=None if aux is None else aux["text"](fused.text).logits,
            features=fused.pooled,
            attentions=attentions or None,
            gates=gates or None,
            router_probs=output.router_probs,
            aux_loss=output.aux_loss,
        )

    def _encode(
        self,
        pixel_values: Any,
        input_ids: Any,
        attention_mask: Any,
        image_present: Any,
        text_present: Any,
        extra: dict[str, Tensor],
    ) -> tuple[Any, Any]:
        """``Features`` of both towers, or None for one that there is not; arguments as in :meth:`forward`.

        A sample that lacks a modality gets its learned token.
        """
        use_image = self.image_tower is not None and pixel_values is not None
        use_text = self.text_tower is not None and input_ids is not None
        if use_image:
            batch_size = pixel_values.shape[0]
        elif use_text:
            batch_size = input_ids.shape[0]
        else:
            wanted = [
                n for n, t in (("pixel_values", self.image_tower), ("input_ids", self.text_tower)) if t is not None
            ]
            raise ValueError(f"The model needs {' or '.join(wanted)}, and got None.")
        read = {name: extra[name] for name in getattr(self.image_tower, "reads", ()) if name in extra}
        if use_image:
            for name in ("slice_mask", "view_mask"):
                if name in read:
                    has_any = read[name].bool().any(dim=1)
                    image_present = has_any if image_present is None else image_present.bool() & has_any
        if use_text:
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            has_tokens = attention_mask.bool().any(dim=1)
            text_present = has_tokens if text_present is None else text_present.bool() & has_tokens
        if self.training and self.modality_dropout > 0 and use_image and use_text:
            image_present, text_present = self._drop_modality(batch_size, image_present, text_present)

        image = text = None
        if self.image_tower is not None:
            image = (
                self._encode_image(pixel_values, image_present, read)
                if use_image
                else self.image_missing.stand_in(batch_size)
            )
        if self.text_tower is not None:
            if use_text:
                # a sample without text shows the encoder one padding token, so that no attention row is empty
                first = torch.arange(attention_mask.shape[1], device=attention_mask.device) == 0
                shown = torch.where(text_present[:, None], attention_mask, first.to(attention_mask.dtype))
                text = self.text_missing(self.text_tower(input_ids, shown), text_present)
            else:
                text = self.text_missing.stand_in(batch_size)
        return image, text

    def _assemble(
        self,
        image_features: dict[str, Tensor] | None,
        text_features: dict[str, Tensor] | None,
        image_present: Tensor | None,
        text_present: Tensor | None,
    ) -> tuple[Any, Any]:
        """As :meth:`_encode`, from what the towers' ``encode`` gave."""
        given = {"image": image_features, "text": text_features}
        towers = {"image": self.image_tower, "text": self.text_tower}
        used = {side: x for side, x in given.items() if x is not None and towers[side] is not None}
        if not used:
            raise ValueError(f"The model needs features of {' or '.join(s for s in towers if towers[s] is not None)}.")
        first = next(iter(next(iter(used.values())).values()))
        batch_size = first.shape[0]
        present = {"image": image_present, "text": text_present}
        if self.training and self.modality_dropout > 0 and len(used) == 2:
            everywhere = torch.ones(batch_size, dtype=torch.bool, device=first.device)
            text_present = everywhere if text_present is None else text_present.bool()
            present["image"], present["text"] = self._drop_modality(batch_size, image_present, text_present)
        result: list[Any] = []
        for side, missing in (("image", self.image_missing), ("text", self.text_missing)):
            if towers[side] is None:
                result.append(None)
            elif side not in used:
                result.append(missing.stand_in(batch_size))
            else:
                features, here = towers[side].assemble(used[side]), present[side]
                # tokens are large and the rest is small: nothing is copied where nothing is missing
                result.append(features if here is None or here.all() else missing(features, here.bool()))
        return result[0], result[1]

    def _encode_image(self, pixel_values: Tensor, present: Tensor | None, read: dict[str, Tensor]) -> Features:
        if present is None:
            return self.image_tower(pixel_values, **read)
        present = present.bool()
        if self.training and not present.all():
            # blank pictures of samples without an image must not enter BatchNorm's statistics
            if not present.any():
                return self.image_missing.stand_in(len(present))
            shown = self.image_tower(pixel_values[present], **{name: x[present] for name, x in read.items()})
            return self.image_missing(_spread(shown, present), present)
        return self.image_missing(self.image_tower(pixel_values, **read), present)

    def _drop_modality(
        self, batch_size: int, image_present: Tensor | None, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hide one modality of some samples that have both."""
        device = text_present.device
        image_present = (
            torch.ones(batch_size, dtype=torch.bool, device=device) if image_present is None else image_present.bool()
        )
        both = image_present & text_present
        drop = both & (torch.rand(batch_size, device=device) < self.modality_dropout)
        image_goes = torch.rand(batch_size, device=device) < 0.5
        return image_present & ~(drop & image_goes), text_present & ~(drop & ~image_goes)

    @property
    def modality_dropout(self) -> float:
        """Probability that a training sample loses one of its modalities."""
        return self.config["modality_dropout"]

    # -- training --------------------------------------------------------------------------------------------------

    def _towers(self) -> list[Any]:
        return [tower for tower in (self.image_tower, self.text_tower) if tower is not None]

    def freeze_encoders(self, *, image: bool = True, text: bool = True) -> None:
        """Freeze the encoders: no gradients, and evaluation mode (BatchNorm, dropout) also after ``.train()``."""
        chosen = [tower for tower, wanted in ((self.image_tower, image), (self.text_tower, text)) if tower and wanted]
        self.frozen += [tower.backbone for tower in chosen]
        for backbone in self.frozen:
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FusionModel:
        """Training mode, except for frozen encoders."""
        super().train(mode)
        for backbone in self.frozen:
            backbone.eval()
        return self

    def param_groups(
        self, lr: float, weight_decay: float = 0.05, encoder_lr_scale: float = 0.1
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser: encoders at ``lr * encoder_lr_scale``, the rest at ``lr``.

        Parameters of one dimension (biases, norms, the tokens of missing modalities) are not decayed. Nor are those
        that a module names in ``no_weight_decay()``, as in timm: position embeddings of its transformers, and the
        dynamics of a state space.
        """
        kept = _undecayed(self)
        encoders = {id(p) for tower in self._towers() for p in tower.backbone.parameters()}
        groups = []
        for part, rate in (("encoders", lr * encoder_lr_scale), ("rest", lr)):
            params = [p for p in self.parameters() if p.requires_grad and (id(p) in encoders) == (part == "encoders")]
            for name, decay, chosen in (
                ("decay", weight_decay, [p for p in params if p.ndim > 1 and id(p) not in kept]),
                ("no_decay", 0.0, [p for p in params if p.ndim <= 1 or id(p) in kept]),
            ):
                if chosen:
                    groups.append({"name": f"{part}_{name}", "params": chosen, "lr": rate, "weight_decay": decay})
        return groups


def _undecayed(model: nn.Module) -> set[int]:
    """Identities of the parameters that some module names, relative to itself, in ``no_weight_decay()``.

    A backbone may name what its variant does not have.
    """
    found: set[int] = set()
    for module in model.modules():
        hook: Any = getattr(module, "no_weight_decay", None)
        if hook is not None:
            named = set(hook())
            found |= {id(parameter) for name, parameter in module.named_parameters() if name in named}
    return found


def _spread(features: Features, present: Tensor) -> Features:
    """Features of the present samples put at their places in the batch; the others are zero, to be replaced."""

    def place(x: Any) -> Tensor:
        return x.new_zeros(len(present), *x.shape[1:]).masked_scatter(present.view(-1, *[1] * (x.ndim - 1)), x)

    def place_each(named: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if named is None else {name: place(x) for name, x in named.items()}

    return Features(
        tokens=None if features.tokens is None else place(features.tokens),
        pooled=place(features.pooled),
        mask=None if features.mask is None else place(features.mask),
        levels=None if features.levels is None else tuple(place(level) for level in features.levels),
        streams=place_each(features.streams),
        gates=place_each(features.gates),
        attentions=place_each(features.attentions),
    )


def _given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _check_taken(image_tower: str, given: dict[str, Any]) -> None:
    """Refuse parts that an image tower does not have, also where it hands further keywords to timm."""
    taken = registry.keywords(registry.get("image_tower", image_tower))
    for name in given:
        if name not in taken:
            raise TypeError(f"image_tower {image_tower!r} takes no {name}; image_tower 'slices' does.")


def model_keywords() -> list[str]:
    """Keywords that ``create_model`` passes on."""
    return [
        name for name in inspect.signature(FusionModel).parameters if name not in ("num_classes", "encoder_weights")
    ]
