"""What a model costs."""

from .costs import flops_per_token

__all__ = ["flops_per_token"]
