"""Text: sentences from metadata, words in any script, the guard against label words, and tokenizers."""
