"""The ladder of ``mmfusion auto``: from the class shares to an ensemble of networks, within a time. Light to import."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.ladder.config import AutoConfig as AutoConfig
    from mmfusion.ladder.leaderboard import Leaderboard as Leaderboard

__getattr__, __dir__ = attach(__name__)
