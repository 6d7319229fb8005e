"""When `generate` runs our fast encoder, and searches over a `FastDecoder`; when it does as transformers does.

`fast_encoder.py` has the encoder, `fast_decoder.py` the decoder, `fast_search.py` the searches. Where a call asks for
something that only the loops of transformers give, such as attention weights, a cache of a certain kind or an adapter
in the weights, they run. So they do where a generation config or a call has `cache_implementation="dynamic"`.
"""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from .attention import MultiHeadAttention
from .dropout import Dropout
from .fast_decoder import FastDecoder, decoder_linears, lay_out_decoder
from .fast_encoder import encode, encoder_linears, lay_out_encoder
from .fast_products import tensors_of
from .frontends import shrink
from .int8 import Int8Embedding, Int8Linear
from .layer_norm import LayerNorm
from .positions import Positions

PARTS = {MultiHeadAttention, Dropout, LayerNorm, nn.Linear, nn.Embedding, nn.ModuleList, nn.Identity}
PARTS |= {Int8Linear, Int8Embedding}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8)
PARTS |= {type(ACT2FN[name]) for name in ("relu", "gelu", "silu")}


class LaidOut(NamedTuple):
    """Weights as they were laid out, and what shows whether they are still those of the model.

    Attributes:
        places: Of each tensor its address, layout and dtype, and torch's count of its changes.
        samples: Views of an element of each row, which show changes through `.data`, which torch does not count.
        values: Of the samples, when the weights were laid out.
        weights: The weights.
    """

    places: list[tuple]
    samples: list[torch.Tensor]
    values: torch.Tensor
    weights: Any


# Model or encoder -> its weights.
_LAID_OUT: weakref.WeakKeyDictionary[nn.Module, LaidOut] = weakref.WeakKeyDictionary()


def is_as_written(module: nn.Module) -> bool:
    """Say whether calling a module does what its class says, and nothing else."""
    changed = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) or module.training
    return not changed and module._compiled_call_impl is None


def is_known(module: nn.Module) -> bool:
    """Say whether `FastDecoder` and `encode` know what a part of a model computes."""
    return isinstance(module, Positions) or type(module) in PARTS


def is_plain(model: PreTrainedModel, parts: list[nn.Module], own_parts: set[type]) -> bool:
    """Say whether the modules of a model compute what their classes say, all of which are known here."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    if model.device.type not in ("cpu", "cuda") or torch.is_autocast_enabled(model.device.type):
        return False
    if model.config._attn_implementation not in ("eager", "sdpa"):
        return False
    return all(is_as_written(part) and (type(part) in own_parts or is_known(part)) for part in parts)


def has_own_weights(linears: list[nn.Linear]) -> bool:
    """Say whether the weights of linear layers are parameters of a known dtype, made by nothing at each call."""
    tensors = [tensor for linear in linears for tensor in tensors_of(linear)]
    return all(type(tensor) is nn.Parameter and tensor.dtype in DTYPES for tensor in tensors)


def can_be_fast(model: PreTrainedModel, own_parts: set[type]) -> bool:
    """Say whether a `FastDecoder` computes what a model's decoder does.

    Args:
        model: A `FunTransformerForConditionalGeneration`.
        own_parts: The classes of its modeling file that an encoder and a decoder are made of.
    """
    if model.copy_layer is not None:
        return False
    parts = [model, model.base_model, *model.get_decoder().modules(), model.lm_head]
    return is_plain(model, parts, own_parts) and has_own_weights(decoder_linears(model))


def can_encode_fast(model: PreTrainedModel, own_parts: set[type]) -> bool:
    """Say whether `encode` computes what a model's encoder does; arguments as those of `can_be_fast`."""
    encoder = model.get_encoder()
    if not is_plain(model, list(encoder.modules()), own_parts):
        return False
    linears = encoder_linears(encoder)
    return has_own_weights(linears) and not any(tensors_of(linear)[0].is_inference() for linear in linears)


def can_serve(generation_config: GenerationConfig, settings: dict[str, Any]) -> bool:
    """Say whether the searches of this file give all that a call of `generate` asks for.

    Args:
        generation_config: That of the call.
        settings: What `generate` would hand to the model at each step, and to its own loop.
    """
    cache = settings.get("past_key_values")
    is_fresh = isinstance(cache, EncoderDecoderCache) and cache.get_seq_length() == 0
    if not is_fresh or getattr(cache, "_is_user_defined", False) or not settings.get("use_cache"):
        return False
    if generation_config.cache_implementation is not None or getattr(generation_config, "is_assistant", False):
        return False
    names = ("output_attentions", "output_hidden_states", "prefill_chunk_size", "low_memory")
    if any(getattr(generation_config, name, None) for name in names):
        return False
    masks = (settings.get("attention_mask"), settings.get("decoder_attention_mask"))
    if any(mask is not None and mask.dim() != 2 for mask in masks):
        return False
    known = {"past_key_values", "use_cache", "attention_mask", "decoder_attention_mask", "encoder_outputs"}
    known |= {"inputs_embeds", "tokenizer"}  # which were read by the encoder, and by rules of stopping
    return all(name in known or value is None or value is False for name, value in settings.items())


def takes_usual_cache(config: PreTrainedConfig, generation_config: GenerationConfig, settings: dict[str, Any]) -> bool:
    """Say whether a call of `generate` begins with an empty cache of the kind that keeps all keys and values.

    Args:
        config: That of the model.
        generation_config: That of the call.
        settings: As in `can_serve`.
    """
    if settings.get("past_key_values") is not None or not generation_config.use_cache:
        return False
    if generation_config.cache_implementation is not None or getattr(generation_config, "is_assistant", False):
        return False
    return all(layer_type == "full_attention" for layer_type in config.stack_layer_types("decoder"))


def sample_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of an element of each row of a matrix, along diagonals, or of all of a vector."""
    if tensor.dim() == 1:
        return tensor.detach()
    if not tensor.is_contiguous():
        return tensor.detach()[:, 0]
    step = tensor.shape[1] + 1
    return tensor.detach().as_strided(((tensor.numel() - 1) // step + 1,), (step,), tensor.storage_offset())


def weights_of(owner: nn.Module, linears: list[nn.Linear], lay_out_all: Callable[[Any], Any]) -> Any:
    """Return the weights of a model or encoder, laid out now or before; threads may do so at once.

    Args:
        owner: Whose weights they are.
        linears: The layers that have them.
        lay_out_all: Lays out the weights of the owner.
    """
    tensors = [tensor for linear in linears for tensor in tensors_of(linear)]
    if any(tensor.is_inference() for tensor in tensors):  # torch counts no changes of these
        return lay_out_all(owner)
    places = [(one.data_ptr(), one._version, one.dtype, one.shape, one.stride()) for one in tensors]
    known = _LAID_OUT.get(owner)
    if known is not None and known.places == places and torch.equal(known.values, torch.cat(known.samples)):
        return known.weights
    samples = [sample_of(tensor) for tensor in tensors]
    known = _LAID_OUT[owner] = LaidOut(places, samples, torch.cat(samples), lay_out_all(owner))
    return known.weights


def fast_encoding(
    model: PreTrainedModel,
    own_parts: set[type],
    generation_config: GenerationConfig,
    inputs: dict[str, Any],
) -> BaseModelOutput | None:
    """Return what a model's encoder returns for a call of `generate`; None where `encode` cannot be used.

    Args:
        model: As in `can_be_fast`.
        own_parts: As in `can_be_fast`.
        generation_config: That of the call.
        inputs: What `generate` has for encoder and decoder.
    """
    names = ("output_attentions", "output_hidden_states", "cache_implementation")
    if any(getattr(generation_config, name, None) for name in names):
        return None
    for_others = ("decoder_", "use_cache", "past_key_values")  # transformers does not give them to an encoder either
    own = {name: value for name, value in inputs.items() if not name.startswith(for_others)}
    input_ids, mask = own.pop("input_ids", None), own.pop("attention_mask", None)
    if any(value is not None for value in own.values()):
        return None
    if input_ids is None or input_ids.dim() != 2 or input_ids.numel() == 0 or input_ids.device != model.device:
        return None
    if mask is not None and (mask.shape != input_ids.shape or mask.device != input_ids.device):
        return None
    if torch.is_grad_enabled() or not can_encode_fast(model, own_parts):
        return None
    encoder = model.get_encoder()
    weights = weights_of(encoder, encoder_linears(encoder), lay_out_encoder)
    return BaseModelOutput(last_hidden_state=encode(encoder, weights, input_ids, mask))


def fast_decoder_for(
    model: PreTrainedModel,
    own_parts: set[type],
    input_ids: torch.Tensor,
    generation_config: GenerationConfig,
    settings: dict[str, Any],
) -> FastDecoder | None:
    """Return a decoder that has read the prompts of a call but for their last tokens; None where it cannot be used.

    Args:
        model: As in `can_be_fast`.
        own_parts: As in `can_be_fast`.
        input_ids: (batch * beams, prompt_len), the rows of a text are equal.
        generation_config: As in `can_serve`.
        settings: As in `can_serve`.
    """
    if torch.is_grad_enabled() or not can_serve(generation_config, settings) or not can_be_fast(model, own_parts):
        return None
    states = settings["encoder_outputs"][0]
    if not input_ids.device == states.device == model.device:
        return None
    beams = max(generation_config.num_beams, generation_config.num_return_sequences)
    masks = [shrink(model.config, settings.get("attention_mask")), settings.get("decoder_attention_mask")]
    source_mask, prompt_mask = (None if mask is None else mask[::beams].to(states.device) for mask in masks)
    weights = weights_of(model, decoder_linears(model), lay_out_decoder)
    decoder = FastDecoder(model, weights, states[::beams], source_mask, beams)
    decoder.read_prompt(input_ids[::beams], prompt_mask, states[::beams])
    return decoder


__all__ = ["fast_decoder_for", "fast_encoding", "takes_usual_cache"]
