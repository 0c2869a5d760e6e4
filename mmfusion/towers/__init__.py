"""Towers: one modality in, ``Features`` out."""

from mmfusion.towers.image import Backbone, ImageTower
from mmfusion.towers.text import TextTower

__all__ = ["Backbone", "ImageTower", "TextTower"]
