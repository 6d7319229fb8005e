"""What a model costs, by formula and measured, and what its training leaves out."""

from .complexity import LayerCost, LayerSizes, Measurement, build_layer, fit_exponent, layer_cost, measure_layer
from .costs import flops_per_token
from .exposure import ExposureGap, exposure_gap

__all__ = [
    "ExposureGap",
    "LayerCost",
    "LayerSizes",
    "Measurement",
    "build_layer",
    "exposure_gap",
    "fit_exponent",
    "flops_per_token",
    "layer_cost",
    "measure_layer",
]
