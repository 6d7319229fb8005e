"""A run and what it leaves: its folder, checkpoints, log and card."""
