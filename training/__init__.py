"""The training engine, run from a checkout: `accelerate launch -m training.train RECIPE`."""
