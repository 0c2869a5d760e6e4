"""Saved models as files: folders, format versions, cards, the Hub, and the weights that come with the package."""
