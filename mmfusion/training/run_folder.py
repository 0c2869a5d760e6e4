"""The folder of a run: its paths, and whether a run may start or resume there."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmfusion.artifacts.names import CONFIG, WEIGHTS
from mmfusion.files import read_json, read_yaml, recover, sha256, write_json, write_yaml
from mmfusion.settings import flat
from mmfusion.training import checkpoints
from mmfusion.training.config import RunConfig

#: Keys that may change when a run resumes: they affect where and how fast it runs, not its result.
FREE_TO_CHANGE = (
    *("card.dataset", "card.intended_use", "card.license", "card.limits", "data", "output", "plugins"),
    *("train.resume", "train.save_steps", "train.trackers", "train.workers"),
)

#: Keys at their defaults that a run fills in from its task and rows: ``with_task`` and ``with_parts`` of
#: :mod:`mmfusion.training.build`, and :mod:`~mmfusion.training.settling`.
FILLED_IN = ("model.table_encoder", "model.text_encoder", "train.loss", "train.metric", "train.batch_size")


class RunFolder:
    """Paths of a run.

    Attributes:
        root: The folder.
        config: Resolved configuration, ``config.yaml``.
        provenance: Data fingerprint, rows, labels and versions, ``provenance.json``.
        split: Split of each row, ``split.csv``.
        metrics: One record per epoch, ``metrics.jsonl``.
        states: Resumable checkpoints, ``checkpoints``.
        best: Saved model of the best epoch.
        last: Saved model of the last epoch.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.config, self.provenance = self.root / "config.yaml", self.root / "provenance.json"
        self.split, self.metrics = self.root / "split.csv", self.root / "metrics.jsonl"
        self.states, self.best, self.last = self.root / "checkpoints", self.root / "best", self.root / "last"

    def check(self, config: RunConfig, *, complete: bool = False) -> bool:
        """Whether to resume (True) or start (False) a run here; raises if neither is possible.

        Args:
            config: The run.
            complete: Whether values that a run fills in are filled in already and must be unchanged.
        """
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"The run folder {self.root} is a file; choose another --output.")
        if not self.config.exists():
            return False
        if not config.train.resume:
            raise FileExistsError(
                f"{self.root} already contains a run; resume it with --train.resume true, or choose another --output."
            )
        before = flat(_complete(read_yaml(self.config)))
        now = flat(asdict(config))
        differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        defaults = flat(asdict(RunConfig(data="")))
        filled_later = () if complete else tuple(key for key in FILLED_IN if now[key] == defaults[key])
        free = (*FREE_TO_CHANGE, *filled_later)
        changed = [f"{k} ({before.get(k)!r} -> {now.get(k)!r})" for k in differing if k not in free]
        if changed:
            raise ValueError(
                f"{self.root} cannot be resumed with a different configuration: {', '.join(changed)}; "
                "restore these values, or choose another --output."
            )
        return True

    def has_best(self) -> bool:
        """Whether the best model exists with unchanged weights."""
        try:
            return bool(read_json(self.best / CONFIG).get("weights_sha256") == sha256(self.best / WEIGHTS))
        except (OSError, ValueError):
            return False

    def check_provenance(self, provenance: dict[str, Any]) -> None:
        """Reject other data, or another number of processes, which would change the steps."""
        if not self.provenance.exists():
            return
        before = read_json(self.provenance)
        if before.get("data_fingerprint") != provenance["data_fingerprint"]:
            raise ValueError(
                f"{self.root} cannot be resumed: the data changed since it started "
                f"(rows then {before.get('rows')}, now {provenance['rows']}); restore them, or choose another --output."
            )
        then, now = before.get("processes"), provenance["processes"]
        if then != now:
            raise ValueError(f"{self.root} cannot be resumed with {now} process(es): it started with {then}.")

    def begin(self, config: RunConfig, provenance: dict[str, Any]) -> None:
        """Create the folder, write configuration and provenance, and delete leftovers of a killed run."""
        self.states.mkdir(parents=True, exist_ok=True)
        for saved in (self.best, self.last):
            recover(saved)
        checkpoints.prune(self.states)
        write_json(self.provenance, provenance)
        write_yaml(self.config, asdict(config))


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with defaults for options added since."""
    defaults = asdict(RunConfig(data=""))
    sections = {name: default for name, default in defaults.items() if isinstance(default, dict)}
    return defaults | values | {name: {**default, **values.get(name, {})} for name, default in sections.items()}
