"""What the commands that use a model share, and the two that answer texts: `translate` and `predict`."""
