"""Towers: one modality in, ``Features`` out."""

from mmfusion.towers.base import Tower
from mmfusion.towers.global_local import GlobalLocalTower
from mmfusion.towers.image import Backbone, ImageTower
from mmfusion.towers.slices import SlicesTower
from mmfusion.towers.text import TextTower
from mmfusion.towers.views import ViewsTower

__all__ = ["Backbone", "GlobalLocalTower", "ImageTower", "SlicesTower", "TextTower", "Tower", "ViewsTower"]
