"""Weights in 8 bits: a quarter of the size of float32, and products of whole numbers on CPUs.

    W[o] = s[o] Q[o],  s[o] = max |W[o]| / 127          a weight matrix, once: a scale for each row, an output
    x    = r q,        r = max |x| / 127                the states of a token, at each product
    W x  = s r (Q q)                                    Q q is a sum of products of whole numbers

Each token has a scale of its own, so it does not matter which texts share a batch. Where torch has no products of
whole numbers (on GPUs, on CPUs that are not x86, while gradients are computed), the weights are turned into floats at
each product, which is slower and no less exact. Embeddings are kept in 8 bits, too, and turned into floats as they are
looked up; a tied output layer has the same numbers. Norms and biases stay floats.

`quantize_int8` does it, `from_pretrained` loads what `save_pretrained` wrote then.
"""

import functools
import math
import warnings
import weakref
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "fun_int8"  # the name in config.json
GREATEST = 127  # of the numbers of a weight
LEAST_SCALE = 1e-12  # a row of zeros stays one
MANY_ROWS = 32  # from here on oneDNN's product is faster than FBGEMM's, which begins sooner


class Packed(NamedTuple):
    """A weight as the products of whole numbers want it.

    Attributes:
        few: For few rows: what FBGEMM multiplies by.
        many: For many rows: what oneDNN multiplies by.
        scale: (out,), of the weight's rows.
        zeros: (out,), where whole numbers have their zero.
        bias: (out,), or None.
        greatest: Of the numbers of a state.
    """

    few: torch.ScriptObject
    many: torch.Tensor
    scale: torch.Tensor
    zeros: torch.Tensor
    bias: torch.Tensor | None
    greatest: int


@functools.cache
def has_products() -> bool:
    """Say whether torch multiplies whole numbers here: it has the operators on x86, but promises none of them."""
    if not {"x86", "fbgemm", "onednn"} <= set(torch.backends.quantized.supported_engines):
        return False
    states, weight = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.int8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once in a process that it will drop quantized tensors one day
            packed = pack(weight, torch.ones(1), None)
            int8_product(states, packed)
            int8_product(states.expand(MANY_ROWS, 1), packed)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def greatest_number() -> int:
    """Return how large the numbers of a state may be: without VNNI, sums of two products would overflow 16 bits."""
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", None)
    return 127 if has_vnni is not None and has_vnni() else 63


def quantize_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a matrix into whole numbers, each row with its scale.

    Args:
        weight: (out, in).

    Returns:
        (out, in) of int8, and (out,) of float32.
    """
    weight = weight.detach().float()
    scale = weight.abs().amax(dim=1).div_(GREATEST).clamp_(min=LEAST_SCALE)  # (out,)
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def pack(weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> Packed:
    """Lay a weight out for products of whole numbers.

    Args:
        weight: (out, in) of int8.
        scale: (out,).
        bias: (out,), or None.
    """
    scale, bias = scale.detach().float(), None if bias is None else bias.detach().float()
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    per_row = torch._make_per_channel_quantized_tensor(weight.detach(), scale.double(), zeros, 0)
    few = torch.ops.quantized.linear_prepack(per_row, None)
    many = torch.ops.onednn.qlinear_prepack(weight.detach(), None)
    return Packed(few, many, scale, zeros.int(), bias, greatest_number())


def int8_product(states: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Compute x W^T + b by whole numbers.

    Args:
        states: (rows, in) of float32.
        packed: W and b.

    Returns:
        (rows, out) of float32.
    """
    greatest, zero = packed.greatest, packed.greatest + 1
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    if len(states) == 1:  # every small operation counts
        least, greatest_state = (one.item() for one in torch.aminmax(states))
        of_row = max(greatest_state, -least, LEAST_SCALE)
        if math.isfinite(of_row):
            outputs = multiply(states, of_row / greatest, zero, packed.few)
            return outputs if packed.bias is None else outputs.add_(packed.bias)
    largest = states.abs().amax(dim=1, keepdim=True).clamp_(min=LEAST_SCALE)  # (rows, 1)
    if len(states) >= MANY_ROWS:
        numbers = (states * (greatest / largest)).round_().to(torch.int8).view(torch.uint8).add_(zero)
        scales = (1 / greatest, zero, packed.many, packed.scale, packed.zeros, None)
        outputs = torch.ops.onednn.qlinear_pointwise(numbers, *scales, 1.0, 0, torch.float32, "none", [], "")
    else:
        outputs = multiply(states / largest, 1 / greatest, zero, packed.few)
    return outputs.mul_(largest) if packed.bias is None else torch.addcmul(packed.bias, outputs, largest)


class Int8Weight(nn.Module):
    """A matrix of whole numbers, each row with its scale.

    Args:
        num_rows, num_columns: Of the matrix.
    """

    def __init__(self, num_rows: int, num_columns: int):
        super().__init__()
        numbers = torch.zeros(num_rows, num_columns, dtype=torch.int8)
        self.int8_weight = nn.Parameter(numbers, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.ones(num_rows), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """The weight as floats, made at each call."""
        return self.int8_weight.to(self.weight_scale.dtype) * self.weight_scale[:, None]

    def set_weight(self, weight: torch.Tensor) -> None:
        """Take a weight of floats."""
        numbers, scale = quantize_rows(weight)
        self.int8_weight = nn.Parameter(numbers, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)


class Int8Linear(Int8Weight):
    """x W^T + b with W in 8 bits, in the place of `nn.Linear`.

    Args:
        in_features, out_features: Sizes of an input and of an output.
        bias: Whether there is a b, in floats.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__(out_features, in_features)
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None

    def can_multiply(self, states: torch.Tensor) -> bool:
        """Say whether a product of whole numbers can be had."""
        is_plain = states.device.type == self.int8_weight.device.type == "cpu" and states.numel() > 0
        return is_plain and not (torch.is_grad_enabled() and states.requires_grad) and has_products()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features), in the dtype of the states."""
        if not self.can_multiply(states):
            bias = None if self.bias is None else self.bias.to(states.dtype)
            return F.linear(states, self.weight.to(states.dtype), bias)
        outputs = int8_product(states.reshape(-1, self.in_features).float(), packed_weight(self))
        return outputs.view(*states.shape[:-1], self.out_features).to(states.dtype)

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Embedding(Int8Weight):
    """Rows of a matrix in 8 bits, as floats, in the place of `nn.Embedding`.

    Args:
        num_embeddings, embedding_dim: Of the table.
        padding_idx: As `nn.Embedding` has it, for others to read.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__(num_embeddings, embedding_dim)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(...) -> (..., embedding_dim)."""
        numbers = F.embedding(input_ids, self.int8_weight)  # (..., embedding_dim)
        return numbers.to(self.weight_scale.dtype) * F.embedding(input_ids, self.weight_scale[:, None])


_PACKED: weakref.WeakKeyDictionary = (
    weakref.WeakKeyDictionary()
)  # Int8Linear -> what changes with it, its packed weight


def packed_weight(linear: Int8Linear) -> Packed:
    """Return the weight of a layer, packed now or before; threads may do so at once."""
    tensors = [tensor for tensor in (linear.int8_weight, linear.weight_scale, linear.bias) if tensor is not None]
    stamp = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
    known = _PACKED.get(linear)
    if known is None or known[0] != stamp:
        known = (stamp, pack(linear.int8_weight, linear.weight_scale, linear.bias))
        _PACKED[linear] = known
    return known[1]


def replace_modules(model: PreTrainedModel, keep_weights: bool) -> None:
    """Put layers of 8 bits in the places of linear layers and token embeddings.

    Args:
        model: Any model.
        keep_weights: Whether they take the weights that are there; else they wait for those of a file.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new: Int8Weight
            if type(child) is nn.Linear:
                new = Int8Linear(child.in_features, child.out_features, child.bias is not None)
                if keep_weights and child.bias is not None:
                    new.bias = nn.Parameter(child.bias.detach().float(), requires_grad=False)
            elif type(child) is nn.Embedding and name == "embed_tokens":
                new = Int8Embedding(child.num_embeddings, child.embedding_dim, child.padding_idx)
            else:
                continue
            if keep_weights:
                new.set_weight(child.weight)
            setattr(parent, name, new.train(child.training))
    for module in model.modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            if isinstance(keys := getattr(module, attribute, None), dict):
                setattr(module, attribute, int8_names(keys))
    if keep_weights:
        model.tie_weights(recompute_mapping=False)


def int8_names(tied: dict[str, str]) -> dict[str, str]:
    """Rename weights that are tied to each other: {"a.weight": "b.weight"} becomes two pairs, numbers and scales."""
    pairs = {}
    for target, source in tied.items():
        if not target.endswith(".weight"):
            pairs[target] = source
            continue
        for name in ("int8_weight", "weight_scale"):
            pairs[target.removesuffix("weight") + name] = source.removesuffix("weight") + name
    return pairs


class Int8Config(QuantizationConfigMixin):
    """What config.json says of a model in 8 bits; as `quantization_config` it makes `from_pretrained` do it."""

    def __init__(self, **kwargs) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]


class Int8Quantizer(HfQuantizer):
    """Lets `from_pretrained` and `save_pretrained` of transformers handle models in 8 bits."""

    def update_dtype(self, dtype: torch.dtype | None) -> torch.dtype:
        """Return float32, in which scales, biases and norms are kept."""
        return torch.float32

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs) -> PreTrainedModel:
        if self.pre_quantized:
            replace_modules(model, keep_weights=False)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs) -> PreTrainedModel:
        if not self.pre_quantized:
            replace_modules(model, keep_weights=True)
        return model

    def is_serializable(self) -> bool:
        """Say that `save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Say that such a model is not trained."""
        return False


if METHOD not in AUTO_QUANTIZER_MAPPING:  # this file may be loaded from several repos
    register_quantizer(METHOD)(Int8Quantizer)
if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
    register_quantization_config(METHOD)(Int8Config)


def quantize_int8(model: PreTrainedModel) -> PreTrainedModel:
    """Turn the weights of a model into 8 bits, in place; `save_pretrained` writes what `from_pretrained` loads.

    Raises:
        ValueError: The weights of the model are not floats.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError("The model is quantized already. Load it as it was trained, and quantize that.")
    quantizer = Int8Quantizer(Int8Config(), pre_quantized=False)
    quantizer.preprocess_model(model.float())
    model.hf_quantizer = quantizer  # type: ignore[assignment]
    quantizer.postprocess_model(model)
    return model.requires_grad_(False).eval()


__all__ = [
    "Int8Config",
    "Int8Embedding",
    "Int8Linear",
    "has_products",
    "int8_product",
    "pack",
    "packed_weight",
    "quantize_int8",
]
