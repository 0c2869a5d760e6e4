"""Sequence aggregators: (B, S, D) and a mask in, tokens and a pooled vector out."""
