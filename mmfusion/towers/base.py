"""Base class of towers (one modality in, ``Features`` out), as used by model, export and explanation."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmfusion.names import did_you_mean
from mmfusion.outputs import Features
from mmfusion.registry import keywords

Side = Literal["image", "clinical"]
SIDES: tuple[Side, ...] = ("image", "clinical")
_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Tower(nn.Module):
    """Base class of towers.

    A custom tower sets ``self.num_features`` and implements :meth:`encode`, whose parameters are its inputs; everything
    else has a default. :class:`~mmfusion.models.FusionModel` passes the inputs, handles samples without the modality,
    and joins it to the other towers of its side.

    Attributes:
        modality: Name of the modality; ``<modality>_present`` marks samples without it. Empty uses the tower's name.
        side: Side of the fusion block on which the modality enters, ``image`` or ``clinical``.
        inputs: Names of the inputs, the parameters of :meth:`encode`. Without the first, no sample has the modality.
        masks: Inputs that mark present parts (tokens, slices); a sample without any lacks the modality.
        free: Inputs whose second dimension varies between batches -> its name (``length``, ``images``).
        fewest: Smallest size of that dimension in an exported program.
        layout: Content of the first input per sample, e.g. ``image``, ``slices`` or ``views``.
        padded: Encoded tensors that are padded along their second dimension; ``mask`` is among them.
        from_scratch: Whether the tower is small and has no pretrained weights: it is trained at the full learning rate,
            and ``freeze_encoders()`` freezes it only if it is named.
        skips_absent: Skip samples without the modality in training, so that their placeholder inputs do not enter
            BatchNorm statistics. Otherwise they run with the inputs that :meth:`shown` returns.
        num_features: Width D of tokens and pooled vector.
        level_dims: Width of each level, the last one D; empty without levels.
        streams: Name -> width of each stream; empty without streams.
        stream_features: Width of the streams, for heads that read them; None without streams.
        max_length: Largest size of the dimension in ``free``; None without a limit.
        pretrained_cfg: Input size, normalization and origin as in timm; empty for other modalities than images.
        origin: Source of pretrained weights (``source``, ``license``, ``gated``); empty for random weights.
        backbone: Module that :meth:`encode` runs, frozen by ``freeze_encoders``; by default the tower itself.
    """

    modality: str = ""
    side: Side = "clinical"
    inputs: tuple[str, ...] = ()
    masks: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[Mapping[str, str]] = _EMPTY
    fewest: ClassVar[int] = 1
    layout: str | None = None
    padded: ClassVar[tuple[str, ...]] = ()
    from_scratch: ClassVar[bool] = False
    skips_absent: ClassVar[bool] = True
    num_features: int
    level_dims: Sequence[int] = ()
    streams: Mapping[str, int] = _EMPTY
    stream_features: int | None = None
    max_length: int | None = None
    pretrained_cfg: Mapping[str, Any] = _EMPTY
    origin: Mapping[str, Any] = _EMPTY
    backbone: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = next((vars(cls)[name] for name in ("encode", "forward") if name in vars(cls)), None)
        if own is not None and "inputs" not in vars(cls):
            cls.inputs = tuple(keywords(own)[1:])

    def __getattr__(self, name: str) -> Any:
        if name == "backbone" and "backbone" not in self.__dict__.get("_modules", ()):
            return self
        return super().__getattr__(name)

    def select(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The tower's inputs that are given; empty if no sample of the batch has the modality."""
        if inputs.get(self.inputs[0]) is None:
            return {}
        return {name: inputs[name] for name in self.inputs if inputs.get(name) is not None}

    def present(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """(B,) bool, True for samples with the modality; None if all have it."""
        found: Tensor | None = inputs.get(f"{self.modality}_present")
        for name in self.masks:
            mask: Tensor | None = inputs.get(name)
            if mask is not None:
                has_any = mask.bool().any(dim=1)
                found = has_any if found is None else found.bool() & has_any
        return found

    def shown(self, inputs: dict[str, Any], present: Tensor) -> dict[str, Any]:
        """Inputs with samples that are not ``present`` (B,) made valid; their results are replaced."""
        return inputs

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """Add optional inputs, since an exported program needs all. ``args``: Keywords of the tower."""
        return inputs

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random inputs of a batch, for export.

        Args:
            present: (B,) bool, False for samples without the modality.
            count: Size of the free dimension (tokens, slices, views).
            image_size: Side of the images in pixels.
            generator: Random generator.
        """
        raise ValueError(f"{type(self).__name__} cannot be exported: implement example(), which returns random inputs.")

    def pictures(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Images that the tower processes, by name, each (B, 3, H, W); for explanations of single-image towers."""
        return {self.modality: inputs[self.inputs[0]]}

    def encode(self, *args: Any, **inputs: Any) -> dict[str, Tensor]:
        """Run the backbone: inputs -> tensors by name for :meth:`assemble`. ``pooled`` (B, D) is enough."""
        raise NotImplementedError(f"{type(self).__name__} has no encode: its features cannot be computed in advance.")

    def assemble(self, encoded: Mapping[str, Tensor]) -> Features:
        """Build features from the result of :meth:`encode`."""
        pooled, given = encoded["pooled"], range(len(self.level_dims) - 1)
        levels = (*(encoded[f"level_{i}"] for i in given), pooled) if self.level_dims else None
        return Features(tokens=encoded.get("tokens"), pooled=pooled, mask=encoded.get("mask"), levels=levels)

    def forward(self, *args: Any, **inputs: Any) -> Features:
        """Inputs -> Features; see :meth:`encode` and :meth:`assemble`."""
        return self.assemble(self.encode(*args, **inputs))

    def layer_numbers(self) -> dict[str, int]:
        """Layer number of each backbone parameter, first layer first; by default all are in one layer."""
        return {}

    @property
    def can_encode(self) -> bool:
        """Whether the backbone can run separately, so that its features can be cached."""
        return type(self).encode is not Tower.encode

    def resolve(self, args: dict[str, Any]) -> dict[str, Any]:
        """Keywords that rebuild the tower elsewhere, where its encoder's name may not exist or mean something else."""
        return args

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the backbone."""
        if enable:
            warnings.warn(f"{type(self).__name__} has no gradient checkpointing; its memory use stays.", stacklevel=2)


def numbered(levels: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """Levels by name for :meth:`Tower.assemble`, ``level_0`` first, without the last, which is the pooled vector."""
    return {f"level_{i}": level for i, level in enumerate((levels or ())[:-1])}


class AdoptedTower(Tower):
    """Wrapper of a module that does not derive from :class:`Tower`, with defaults for missing attributes.

    The parameters of its ``forward`` are the inputs: the first is the modality's, others have their own names.
    """

    def __init__(self, module: nn.Module, modality: str, side: Side, inputs: Sequence[str]) -> None:
        super().__init__()
        self.backbone = module
        names = keywords(module.forward)
        self.modality, self.side = modality, side
        self.inputs = (*inputs[: len(names)], *names[len(inputs) :])
        self.layout = "image" if side == "image" else None
        for name in ("num_features", "level_dims", "streams", "stream_features", "max_length", "pretrained_cfg"):
            if hasattr(module, name):
                setattr(self, name, getattr(module, name))

    def forward(self, *args: Any, **inputs: Any) -> Features:
        """Call the module, inputs by position."""
        given = [*args, *(inputs.get(name) for name in self.inputs[len(args) :])]
        features: Features = self.backbone(*given)
        return features


#: Modality -> its side and first inputs, for towers that do not declare them.
STANDARD: dict[str, tuple[Side, tuple[str, ...]]] = {
    "image": ("image", ("pixel_values",)),
    "text": ("clinical", ("input_ids", "attention_mask")),
    "table": ("clinical", ("numeric_values", "category_ids")),
}


def declared(module: Any, part: str, modality: str) -> Tower:
    """Check the declarations of a tower built by a registered part, and return it.

    Args:
        module: Result of the part.
        part: Kind and name, for messages.
        modality: Its modality, if it does not declare one.

    Raises:
        TypeError: The part is not a module, or lacks a declaration; the message names it.
    """
    named = f"{part} ({type(module).__name__})"
    for fault in _faults(module, modality):
        raise TypeError(named + fault)
    if not isinstance(module, Tower):
        return AdoptedTower(module, modality, *STANDARD[modality])
    module.modality = module.modality or modality
    return module


def _faults(module: Any, modality: str) -> Iterator[str]:
    """What a tower lacks, as the end of an error message."""
    if not isinstance(module, nn.Module):
        yield " is not a torch.nn.Module; derive it from mmfusion.towers.Tower."
    if not isinstance(getattr(module, "num_features", None), int):
        yield " has no num_features, the width of its pooled vector; set self.num_features."
    if isinstance(module, Tower):
        if type(module).encode is Tower.encode and type(module).forward is Tower.forward:
            yield " has no encode and no forward; implement encode(inputs) -> {'pooled': (B, D)}."
        if not (named := module.modality or modality).isidentifier():
            yield f": modality={named!r} cannot begin the name of an input; use a_z and 0_9."
        if not module.inputs:
            yield " names no inputs; name them as the parameters of encode."
        if module.side not in SIDES:
            yield f": side={module.side!r}; {did_you_mean(str(module.side), list(SIDES))}"
    elif type(module).forward is nn.Module.forward:
        yield f" has no forward; implement forward({STANDARD[modality][1][0]}) -> Features."
    elif modality not in STANDARD:
        yield " has no side and no inputs; derive it from mmfusion.towers.Tower."
