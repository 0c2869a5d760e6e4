"""Names of the files of a saved model, and how the names of saved models begin."""

from mmfusion.repositories import HUB as HUB, LOCAL as LOCAL

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
#: means and covariances of the training rows' features, where training kept them.
FAMILIARITY = "familiarity.safetensors"
#: the hashes of the files in :data:`READ`.
FILES = "files.json"
TOKENIZER = (
    *("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.json", "vocab.txt"),
)
#: all that loading a saved model reads; README.md and metrics.json are for people. A new file of a saved model that
#: loading reads is named here, and is then hashed, checked, fetched and pushed.
READ = (CONFIG, WEIGHTS, FAMILIARITY, *TOKENIZER)
#: lists the members of an ensemble.
ENSEMBLE = "ensemble.json"
