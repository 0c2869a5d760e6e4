"""Names of the files of a saved model, and how the names of saved models begin."""

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"

#: beginnings of the name of a model in a folder, and of one on the Hub.
LOCAL, HUB = "local-dir:", "hf-hub:"
