"""File names of a saved model, and prefixes of model names."""

from mmfusion.repositories import HUB as HUB, LOCAL as LOCAL

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
#: Means and covariances of the training features, if saved.
FAMILIARITY = "familiarity.safetensors"
#: Hashes of the files in :data:`READ`.
FILES = "files.json"
TOKENIZER = (
    *("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.json", "vocab.txt"),
)
#: All files needed for loading; README.md and metrics.json are for people. A new file needed for loading must be added
#: here to be hashed, checked, downloaded and pushed.
READ = (CONFIG, WEIGHTS, FAMILIARITY, *TOKENIZER)
#: List of the members of an ensemble.
ENSEMBLE = "ensemble.json"
