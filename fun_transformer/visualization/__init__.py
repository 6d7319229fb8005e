"""Pictures: what a model attends to, and how its training went. Needs matplotlib (the extra `viz`)."""

try:
    from .attention import AttentionMap, cross_attention, plot_attention, plot_attention_heads
    from .curves import plot_training_curve
    from .exposure import plot_exposure_gap
    from .html import write_attention_page
    from .pictures import Panel, plot_lines, plot_matrices
    from .vectors import plot_word_vectors
except ModuleNotFoundError as error:
    if error.name != "matplotlib":
        raise
    raise ImportError("Pictures need matplotlib: pip install 'fun-transformer[viz]'") from error

__all__ = [
    "AttentionMap",
    "Panel",
    "cross_attention",
    "plot_attention",
    "plot_attention_heads",
    "plot_exposure_gap",
    "plot_lines",
    "plot_matrices",
    "plot_training_curve",
    "plot_word_vectors",
    "write_attention_page",
]
