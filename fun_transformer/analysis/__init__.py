"""What a model costs, and what its training leaves out."""

from .costs import flops_per_token
from .exposure import ExposureGap, exposure_gap

__all__ = ["ExposureGap", "exposure_gap", "flops_per_token"]
