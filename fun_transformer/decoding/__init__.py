"""Decoding as people need it, for every encoder-decoder model of transformers: watched, scored and aligned."""
