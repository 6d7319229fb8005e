"""Layer normalisation (paper, section 3.1; Ba et al. 2016, arXiv:1607.06450): mean 0 and variance 1 at each position.

Mean and variance are computed in float32 whatever comes in. GPU autocast would make what comes *out* float32 as well,
and with it everything that is added to it up to the next norm: twice the memory traffic of a model most of whose time
outside matrix products is memory traffic. Here a norm returns the dtype that it gets, as CPU autocast has it anyway.
"""

import torch
from torch import nn


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` that keeps the dtype of the residual stream under autocast."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise states of (..., d_model), in the dtype that they have."""
        device_type, dtype = hidden_states.device.type, hidden_states.dtype
        if device_type == "cpu" or not torch.is_autocast_enabled(device_type):
            return super().forward(hidden_states)
        with torch.autocast(device_type, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            return nn.functional.layer_norm(hidden_states, self.normalized_shape, weight, bias, self.eps)
