"""Names of the files of a saved model, and how the names of saved models begin."""

from mmfusion.repositories import HUB as HUB, LOCAL as LOCAL

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
#: lists the members of an ensemble.
ENSEMBLE = "ensemble.json"
