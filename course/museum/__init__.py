"""The bug museum: mistakes that people make in a Transformer, each in a small model of its own (docs/museum.md)."""
