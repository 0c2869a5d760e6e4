"""``push(config)``: upload of a saved model to the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path

from mmfusion.artifacts.config import PushConfig
from mmfusion.artifacts.folder import resolve_artifact
from mmfusion.artifacts.names import CARD, CONFIG, HUB
from mmfusion.artifacts.publishing import contents, push_to_hub
from mmfusion.artifacts.traces import told, traces_in
from mmfusion.files import read_json


@dataclass(frozen=True)
class Pushed:
    """Result of a push.

    Attributes:
        repo: ``org/name`` on the Hub.
        commit: URL of the commit.
    """

    repo: str
    commit: str

    def summary(self) -> str:
        """The commit, and how to load the model from the Hub."""
        return f"{self.commit}\nload it with mmfusion.create_model('{HUB}{self.repo}')"


@dataclass(frozen=True)
class PushPlan:
    """Contents of a push, for a dry run.

    Attributes:
        repo: ``org/name`` on the Hub.
        private: Whether a new repository is private.
        files: Name -> bytes.
        license: License of the weights on the card, or None.
        card: Text of the card, or None.
        findings: Possible personal data in its texts in one line, or None.
    """

    repo: str
    private: bool
    files: dict[str, int]
    license: str | None
    card: str | None
    findings: str | None = None

    def summary(self) -> str:
        """Files, sizes, license and card."""
        access = "private" if self.private else "public"
        width = max(map(len, self.files))
        lines = [f"to {self.repo} ({access} if new):"]
        lines += [f"  {name:{width}}  {size:>12,} bytes" for name, size in self.files.items()]
        lines += [f"  {'total':{width}}  {sum(self.files.values()):>12,} bytes"]
        lines += [f"license: {self.license or 'none; set card.license'}", "card:", self.card or "none"]
        lines += [f"--force would be needed because of {self.findings}"] if self.findings else []
        return "\n".join([*lines, "nothing was sent (dry_run)"])


def _plan(folder: Path, config: PushConfig) -> PushPlan:
    traces = traces_in(folder)
    found = {
        name: data.read_bytes() if name == CARD and isinstance(data, Path) else data
        for name, data in contents(folder, config.repo, traces if config.force else None).items()
    }
    sizes = {name: data.stat().st_size if isinstance(data, Path) else len(data) for name, data in found.items()}
    card, about = found.get(CARD), read_json(folder / CONFIG).get("card") or {}
    text = card.decode() if isinstance(card, bytes) else None
    findings = told(traces) if traces and not config.force else None
    return PushPlan(config.repo, config.private, sizes, about.get("license"), text, findings)


def push(config: PushConfig) -> Pushed | PushPlan:
    """Upload a saved model to the Hugging Face Hub in one commit, or list its contents (dry run)."""
    folder = resolve_artifact(config.model)
    if config.dry_run:
        return _plan(folder, config)
    print(f"pushing {folder} to {config.repo}")
    options = {name: value for name, value in vars(config).items() if name not in ("model", "repo", "dry_run")}
    return Pushed(config.repo, push_to_hub(folder, config.repo, **options))
