"""The audit of a data set: what would make figures measured on it untrue."""
