"""Freezing of encoders, of their first stages or of their BatchNorm, permanently or for some epochs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfusion.names import did_you_mean
from mmfusion.towers.base import Tower
from mmfusion.towers.stages import early_parts


class Freezable(nn.Module):
    """Mixin of :class:`mmfusion.FusionModel` that freezes its encoders.

    Attributes:
        frozen: Modules that are frozen permanently.
        held: Parameters that are frozen temporarily.
    """

    config: Any
    modalities: list[str]
    image_tower: Any

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[nn.Module] = []
        self.held: list[nn.Parameter] = []

    @property
    @abstractmethod
    def towers(self) -> dict[str, Tower]:
        """modality -> tower."""

    @property
    def encoders(self) -> list[Tower]:
        """Towers that may start from pretrained weights."""
        return [tower for tower in self.towers.values() if not tower.from_scratch]

    def freeze_encoders(self, **modalities: bool) -> None:
        """Freeze the encoders: no gradients, and evaluation mode (BatchNorm, dropout) even after ``.train()``.

        Args:
            modalities: Modality -> whether to freeze its encoder. By default those that can start from pretrained
                weights are frozen (:attr:`mmfusion.towers.Tower.from_scratch` is False).
        """
        self._check_modalities(modalities)
        chosen = {m: tower for m, tower in self.towers.items() if modalities.get(m, not tower.from_scratch)}
        self._freeze([tower.backbone for tower in chosen.values()])

    def freeze_stages(self, count: int) -> None:
        """Freeze the stem and the first stages of the image backbones, as in :meth:`freeze_encoders`.

        The backward pass stops before these stages.

        Args:
            count: Number of stages (blocks of a transformer) after the stem, less than their total; 0 freezes only the
                stem.

        Raises:
            ValueError: There is no timm image backbone, or it has too few stages.
        """
        backbones = getattr(self.image_tower, "backbones", [])
        if not backbones:
            raise ValueError("freeze_stages needs an image tower that reads images through a backbone of timm.")
        try:
            self._freeze([part for backbone in backbones for part in early_parts(backbone.model, count)])
        except ValueError as error:
            raise ValueError(f"Of {self.config['image_encoder']!r} {count} stages cannot be frozen: {error}") from None

    def freeze_norm(self) -> None:
        """Freeze every BatchNorm of the encoders: weights and running statistics stay, even after ``.train()``."""
        backbones = [tower.backbone for tower in self.encoders]
        self._freeze([module for each in backbones for module in each.modules() if isinstance(module, _BatchNorm)])

    def _freeze(self, parts: Sequence[nn.Module | nn.Parameter]) -> None:
        for part in parts:
            part.requires_grad_(False)
        self.frozen += [part.eval() for part in parts if isinstance(part, nn.Module) and part not in self.frozen]

    def unfreeze_encoders(self, **modalities: bool) -> None:
        """Undo all freezing of the encoders: they get gradients again and follow the model's mode.

        Args:
            modalities: Modality -> whether to unfreeze its encoder; all by default.
        """
        self._check_modalities(modalities)
        for backbone in (tower.backbone for m, tower in self.towers.items() if modalities.get(m, True)):
            own = set(backbone.modules())
            self.frozen = [module for module in self.frozen if module not in own]
            backbone.requires_grad_(True).train(self.training)

    def _check_modalities(self, modalities: dict[str, bool]) -> None:
        unknown = [name for name in modalities if name not in ("image", "text", "table", *self.modalities)]
        if unknown:
            raise TypeError(f"The model has no modality {unknown[0]!r}; {did_you_mean(unknown[0], self.modalities)}")

    def hold_encoders(self, hold: bool) -> None:
        """Freeze the encoders temporarily; False releases them."""
        backbones = [tower.backbone for tower in self.encoders]
        if hold and not self.held:
            self.held = [p for backbone in backbones for p in backbone.parameters() if p.requires_grad]
        for parameter in self.held:
            parameter.requires_grad_(not hold)
        if not hold:
            self.held = []
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen."""
        super().train(mode)
        held = [tower.backbone for tower in self.encoders] if self.held else []
        for module in (*self.frozen, *held):
            module.eval()
        return self
