"""What a model attends to, what it costs, by formula and measured, and what its training leaves out."""

from .attention import AttentionMap, View, attention_over_features, cross_attention
from .complexity import LayerCost, LayerSizes, Measurement, build_layer, fit_exponent, layer_cost, measure_layer
from .costs import flops_per_token
from .exposure import ExposureGap, exposure_gap

__all__ = [
    "AttentionMap",
    "ExposureGap",
    "LayerCost",
    "LayerSizes",
    "Measurement",
    "View",
    "attention_over_features",
    "build_layer",
    "cross_attention",
    "exposure_gap",
    "fit_exponent",
    "flops_per_token",
    "layer_cost",
    "measure_layer",
]
