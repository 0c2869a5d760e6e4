"""``mmfusion auto``: baselines, networks and their ensemble within a time limit. Imports no heavy library."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.ladder.config import AutoConfig as AutoConfig
    from mmfusion.ladder.leaderboard import Leaderboard as Leaderboard

__getattr__, __dir__ = attach(__name__)
