"""Options of ``mmfusion app``."""

import ipaddress
from dataclasses import dataclass, field


@dataclass
class AppConfig:
    """Options of ``mmfusion app``.

    Attributes:
        model: Trained models to choose from: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``. By default the
            weights that come with the package.
        host: Address to listen on; by default reachable only from this machine.
        port: Port to listen on; 0 selects a free one.
        max_upload_mb: Maximum size of an upload in megabytes, all files together.
        max_rows: Maximum number of rows of a table.
        open_browser: Open the page in the browser of this machine.
    """

    model: list[str] = field(default_factory=list)
    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_mb: int = 64
    max_rows: int = 1000
    open_browser: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, got {self.port}.")
        for name in ("max_upload_mb", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")

    @property
    def is_local(self) -> bool:
        """Whether the page is reachable only from this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
