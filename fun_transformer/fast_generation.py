"""When `generate` runs its own searches over a `FastDecoder`, and when those of transformers.

`fast_decoder.py` has the decoder, `fast_search.py` the searches. Where a call asks for something that only the loops
of transformers give, such as attention weights, a cache of a certain kind or an adapter in the weights, they run. So
they do where a generation config or a call has `cache_implementation="dynamic"`.
"""

import weakref
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import GenerationConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import EncoderDecoderCache

from .attention import MultiHeadAttention
from .dropout import Dropout
from .fast_decoder import DecoderWeights, FastDecoder, lay_out_decoder, linears_of, tensors_of
from .int8 import Int8Embedding, Int8Linear
from .layer_norm import LayerNorm
from .positions import Positions

PARTS = {MultiHeadAttention, Dropout, LayerNorm, nn.Linear, nn.Embedding, nn.ModuleList, nn.Identity}
PARTS |= {Int8Linear, Int8Embedding}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8)
PARTS |= {type(ACT2FN[name]) for name in ("relu", "gelu", "silu")}

# Model -> the stamp of its weights, and the weights as they were laid out then.
_LAID_OUT: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def is_as_written(module: nn.Module) -> bool:
    """Say whether calling a module does what its class says, and nothing else."""
    changed = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) or module.training
    return not changed and module._compiled_call_impl is None


def is_known(module: nn.Module) -> bool:
    """Say whether `FastDecoder` knows what a part of a decoder computes."""
    if isinstance(module, Positions):
        return not module.overrides("rotate") and not module.overrides("bias")
    return type(module) in PARTS


def can_be_fast(model: PreTrainedModel, own_parts: set[type]) -> bool:
    """Say whether a `FastDecoder` computes what a model's decoder does.

    Args:
        model: A `FunTransformerForConditionalGeneration`.
        own_parts: The classes of its modeling file that a decoder is made of.
    """
    decoder = model.get_decoder()
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    if model.device.type not in ("cpu", "cuda") or torch.is_autocast_enabled(model.device.type):
        return False
    if model.config._attn_implementation not in ("eager", "sdpa"):
        return False
    parts = [model, model.base_model, *decoder.modules(), model.lm_head]
    if not all(is_as_written(part) and (type(part) in own_parts or is_known(part)) for part in parts):
        return False
    tensors = [tensor for linear in linears_of(model) for tensor in tensors_of(linear)]
    return all(type(tensor) is nn.Parameter and tensor.dtype in DTYPES for tensor in tensors)


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


def stamp_of(model: PreTrainedModel) -> tuple[list, torch.Tensor]:
    """Return what changes when weights do: where they are, torch's count of changes, and an element of each row.

    The elements, taken along diagonals, show changes through `.data`, which torch does not count.
    """
    tensors = [tensor for linear in linears_of(model) for tensor in tensors_of(linear)]
    places = [(tensor.data_ptr(), tensor._version, tensor.dtype, tensor.shape) for tensor in tensors]
    samples = []
    for tensor in tensors:
        step = tensor.shape[-1] + 1 if tensor.dim() > 1 else 1
        values = tensor if tensor.is_contiguous() else tensor.contiguous()
        samples.append(values.as_strided(((values.numel() - 1) // step + 1,), (step,)))
    return places, torch.cat(samples)


def weights_of(model: PreTrainedModel) -> DecoderWeights:
    """Return the weights of a decoder, laid out now or before; threads may do so at once."""
    if any(tensors_of(linear)[0].is_inference() for linear in linears_of(model)):  # torch counts no changes of these
        return lay_out_decoder(model)
    places, samples = stamp_of(model)
    known = _LAID_OUT.get(model)
    if known is not None and known[0] == places and torch.equal(known[1], samples):
        return known[2]
    weights = lay_out_decoder(model)
    _LAID_OUT[model] = (places, samples, weights)
    return weights


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
    if not can_serve(generation_config, settings) or not can_be_fast(model, own_parts):
        return None
    states = settings["encoder_outputs"][0]
    if not input_ids.device == states.device == model.device:
        return None
    beams = max(generation_config.num_beams, generation_config.num_return_sequences)
    masks = [settings.get(name) for name in ("attention_mask", "decoder_attention_mask")]
    source_mask, prompt_mask = (None if mask is None else mask[::beams].to(states.device) for mask in masks)
    decoder = FastDecoder(model, weights_of(model), states[::beams], source_mask, beams)
    decoder.read_prompt(input_ids[::beams], prompt_mask, states[::beams])
    return decoder


__all__ = ["fast_decoder_for"]
