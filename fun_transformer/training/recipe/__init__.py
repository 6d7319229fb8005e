"""The recipe of a training run: its arguments, and how they are read, checked and completed."""
