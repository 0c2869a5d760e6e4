"""``push(config)``: a saved model to the Hugging Face Hub."""

from dataclasses import dataclass

from mmfusion.artifacts.config import PushConfig
from mmfusion.artifacts.folder import resolve_artifact
from mmfusion.artifacts.hub import push_to_hub
from mmfusion.artifacts.names import HUB


@dataclass(frozen=True)
class Pushed:
    """What a push made.

    Attributes:
        repo: ``org/name`` on the Hub.
        commit: Address of the commit.
    """

    repo: str
    commit: str

    def summary(self) -> str:
        """The commit, and how to load the model from the Hub."""
        return f"{self.commit}\nload it with mmfusion.create_model('{HUB}{self.repo}')"


def push(config: PushConfig) -> Pushed:
    """Push a saved model to the Hugging Face Hub, in one commit."""
    folder = resolve_artifact(config.model)
    print(f"pushing {folder} to {config.repo}")
    options = {name: value for name, value in vars(config).items() if name not in ("model", "repo")}
    return Pushed(config.repo, push_to_hub(folder, config.repo, **options))
