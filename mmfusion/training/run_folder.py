"""The folder of a run: what lies where, and whether a run may begin or go on in it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmfusion.artifacts.names import CONFIG, WEIGHTS
from mmfusion.files import read_json, read_yaml, recover, sha256, write_json, write_yaml
from mmfusion.settings import flat
from mmfusion.training import checkpoints
from mmfusion.training.config import RunConfig

#: keys that may differ when a run goes on: they change where and how fast it runs, not what comes out.
FREE_TO_CHANGE = (
    *("card.dataset", "card.intended_use", "card.license", "card.limits", "data", "output", "plugins"),
    *("train.resume", "train.save_steps", "train.trackers", "train.workers"),
)

#: keys that a run fills in where they are left open, from its task and its rows: ``with_task`` and ``with_parts`` of
#: :mod:`mmfusion.training.build`.
FILLED_IN = ("model.table_encoder", "model.text_encoder", "train.loss", "train.metric")


class RunFolder:
    """Paths of a run.

    Attributes:
        root: the folder.
        config: the resolved configuration, ``config.yaml``.
        provenance: data fingerprint, rows, labels and versions, ``provenance.json``.
        split: which row was in which split, ``split.csv``.
        metrics: one record per epoch, ``metrics.jsonl``.
        states: resumable states, ``checkpoints``.
        best: saved model of the best epoch.
        last: saved model of the last epoch.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.config, self.provenance = self.root / "config.yaml", self.root / "provenance.json"
        self.split, self.metrics = self.root / "split.csv", self.root / "metrics.jsonl"
        self.states, self.best, self.last = self.root / "checkpoints", self.root / "best", self.root / "last"

    def check(self, config: RunConfig, *, complete: bool = False) -> bool:
        """Whether a run is to go on here (True) or to begin (False); an error where it may do neither.

        Args:
            config: The run.
            complete: Whether what a run fills in is filled in already, and has to be as it was.
        """
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"The run folder {self.root} is a file; choose another --output.")
        if not self.config.exists():
            return False
        if not config.train.resume:
            raise FileExistsError(
                f"{self.root} holds a run already; add --train.resume true to go on with it, "
                "or choose another --output."
            )
        before = flat(_complete(read_yaml(self.config)))
        now = flat(asdict(config))
        differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        filled_later = () if complete else tuple(key for key in FILLED_IN if now.get(key) in (None, "auto"))
        free = (*FREE_TO_CHANGE, *filled_later)
        changed = [f"{k} ({before.get(k)!r} -> {now.get(k)!r})" for k in differing if k not in free]
        if changed:
            raise ValueError(
                f"{self.root} cannot be resumed with another configuration: {', '.join(changed)}; "
                "set them back, or choose another --output."
            )
        return True

    def has_best(self) -> bool:
        """Whether the best model is there, with the weights that it was saved with."""
        try:
            return bool(read_json(self.best / CONFIG).get("weights_sha256") == sha256(self.best / WEIGHTS))
        except (OSError, ValueError):
            return False

    def check_provenance(self, provenance: dict[str, Any]) -> None:
        """Refuse to go on with other data, or with another number of processes, whose steps would be others."""
        if not self.provenance.exists():
            return
        before = read_json(self.provenance)
        if before.get("data_fingerprint") != provenance["data_fingerprint"]:
            raise ValueError(
                f"{self.root} cannot be resumed: the data changed since it began "
                f"(rows then {before.get('rows')}, now {provenance['rows']}); restore them, or choose another --output."
            )
        then, now = before.get("processes"), provenance["processes"]
        if then != now:
            raise ValueError(f"{self.root} cannot be resumed with {now} process(es): it began with {then}.")

    def begin(self, config: RunConfig, provenance: dict[str, Any]) -> None:
        """Create the folder, write what the run is told, and clear away what a killed run left half-written."""
        self.states.mkdir(parents=True, exist_ok=True)
        for saved in (self.best, self.last):
            recover(saved)
        checkpoints.prune(self.states)
        write_json(self.provenance, provenance)
        write_yaml(self.config, asdict(config))


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """A written configuration, with their defaults for options that came into the library since."""
    defaults = asdict(RunConfig(data=""))
    sections = {name: default for name, default in defaults.items() if isinstance(default, dict)}
    return defaults | values | {name: {**default, **values.get(name, {})} for name, default in sections.items()}
