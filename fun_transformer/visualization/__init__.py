"""Pictures: what a model attends to, and how its training went. Needs matplotlib (the extra `viz`)."""

from .attention import AttentionMap, cross_attention, plot_attention
from .curves import plot_training_curve

__all__ = ["AttentionMap", "cross_attention", "plot_attention", "plot_training_curve"]
