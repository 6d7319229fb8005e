"""Draw what was computed: pictures, which need matplotlib (the extra `viz`), and one HTML page, which does not."""

from .html import write_attention_page

try:
    from .attention import plot_attention, plot_attention_heads
    from .curves import plot_training_curve
    from .exposure import plot_exposure_gap
    from .media import plot_picture_attention, plot_speech_attention
    from .pictures import Panel, plot_lines, plot_matrices, plot_pieces
    from .trees import Node, plot_search_tree
    from .vectors import plot_word_vectors
except ModuleNotFoundError as error:
    if error.name != "matplotlib":
        raise

    def __getattr__(name: str):
        """Say what to install for a picture."""
        if name in __all__:
            raise ImportError("Pictures need matplotlib: pip install 'fun-transformer[viz]'")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Node",
    "Panel",
    "plot_attention",
    "plot_attention_heads",
    "plot_exposure_gap",
    "plot_lines",
    "plot_matrices",
    "plot_picture_attention",
    "plot_pieces",
    "plot_search_tree",
    "plot_speech_attention",
    "plot_training_curve",
    "plot_word_vectors",
    "write_attention_page",
]
