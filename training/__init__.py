"""Launchers of the trainer in `fun_transformer.training`: `accelerate launch -m training.train RECIPE`."""
