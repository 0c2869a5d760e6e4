"""Saved models as files: folders, format versions, model cards, the Hub, and weights in installed packages."""
