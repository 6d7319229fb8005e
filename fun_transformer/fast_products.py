"""Products with weights, norms and masks as functions, for the fast encoder and decoder of `generate`."""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .int8 import Int8Linear, has_products, int8_product, pack

# x W^T + b or a norm, from (rows, in) to (rows, out).
Product = Callable[[torch.Tensor], torch.Tensor]

MANY_ROWS = 48  # from here on reading weights takes less time than multiplying, and half the reading gains nothing


def has_blocks() -> bool:
    """Say whether torch can lay bfloat16 weights out in blocks: it has the operators, but does not document them."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


@functools.cache
def has_float16_weights() -> bool:
    """Say whether torch multiplies float32 by weights in float16 here: it does on x86, and will drop it one day."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will be dropped: `lay_out` has another way then
            packed = torch.fbgemm_pack_gemm_matrix_fp16(torch.ones(1, 1))
            product = torch.fbgemm_linear_fp16_weight_fp32_activation(torch.ones(1, 1), packed, torch.ones(1))
        return product.item() == 2
    except (AttributeError, RuntimeError, TypeError):
        return False


def float32_product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """Return the product with a weight of float32 on a CPU.

    Many models are stored in float16 and computed in float32. At few rows a product takes as long as reading its
    weights takes, so weights that are float16 numbers are read as such: half the bytes, the same products.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """
    columns = weight.t().contiguous()  # (in, out)
    packed = None
    if has_float16_weights() and torch.equal(weight.half().float(), weight):
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
    added = weight.new_zeros(len(weight)) if bias is None else bias

    def product(states: torch.Tensor) -> torch.Tensor:
        if packed is not None and len(states) < MANY_ROWS and torch.get_num_threads() == 1:  # it uses one thread
            return torch.fbgemm_linear_fp16_weight_fp32_activation(states, packed, added)
        return torch.mm(states, columns) if bias is None else torch.addmm(bias, states, columns)

    return product


def lay_out(*linears: nn.Linear) -> Product:
    """Lay out the weights of linear layers that read the same states; return their product with states.

    On a CPU products are faster with a weight of (in, out) than with one of (out, in), as `nn.Linear` has it; at few
    rows with one of float16, if its numbers are such; and in bfloat16 with the blocks that oneDNN's kernels read.
    """
    biases = [linear.bias for linear in linears]
    bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    if isinstance(linears[0], Int8Linear) and linears[0].int8_weight.device.type == "cpu" and has_products():
        numbers = torch.cat([linear.int8_weight for linear in linears])  # (out, in)
        packed = pack(numbers, torch.cat([linear.weight_scale for linear in linears]), bias)
        return lambda states: int8_product(states, packed)
    weights = [linear.weight.detach() for linear in linears]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)  # (out, in)
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return float32_product(weight, bias)
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and has_blocks():
        multiply, blocks = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight(weight)
        return lambda states: multiply(states, blocks, bias, "none", [], "")
    return lambda states: F.linear(states, weight, bias)


def norm_of(norm: nn.LayerNorm) -> Product:
    """Return a norm as a function."""
    shape, weight, bias, eps = tuple(norm.normalized_shape), norm.weight, norm.bias, norm.eps
    return lambda states: F.layer_norm(states, shape, weight, bias, eps)


def tensors_of(linear: nn.Module) -> list[torch.Tensor]:
    """Return what the values of a linear layer are stored in; the weight of one in 8 bits is made from them."""
    is_int8 = isinstance(linear, Int8Linear)
    weight = [linear.int8_weight, linear.weight_scale] if is_int8 else [linear.weight]
    return weight if linear.bias is None else [*weight, linear.bias]


def activation_of(feed_forward: nn.Module) -> Product:
    """Return the activation of a feed-forward network as a function that may write into its input."""
    activation = feed_forward.activation
    return torch.relu_ if isinstance(activation, nn.ReLU) else activation.forward


def forbidden_score(config: PreTrainedConfig, dtype: torch.dtype) -> float:
    """Return what is added to the score of a token that may not be attended to.

    Where a text may attend to nothing, the kernels of the model differ: eager attention takes equal weights.
    """
    return torch.finfo(dtype).min if config._attn_implementation == "eager" else -torch.inf


def additive(mask: torch.Tensor, dtype: torch.dtype, forbidden: float) -> torch.Tensor:
    """Turn 1 = may attend, 0 = may not into what is added to scores: 0 and `forbidden`."""
    return torch.zeros(mask.shape, device=mask.device, dtype=dtype).masked_fill_(mask == 0, forbidden)


def add_bias(mask: torch.Tensor | None, bias: torch.Tensor) -> torch.Tensor:
    """Add a bias of the scores, (batch or 1, heads, query_len, key_len), to an additive mask.

    Nothing is below the minimum of the dtype, so that a text that may attend to nothing gets equal weights, as in the
    model.
    """
    return bias if mask is None else (mask + bias).clamp(min=torch.finfo(bias.dtype).min)


__all__ = ["Product", "activation_of", "add_bias", "additive", "forbidden_score", "lay_out", "norm_of", "tensors_of"]
