"""An exact loss for models of any family: summed over all labels of a step, with label smoothing, without all logits.

The models of transformers divide by the labels of a batch and know no label smoothing, and hold the logits of the
whole batch. Here a model's forward() is kept as it is, up to its output layer: what comes in there, and the layer's
weight, are all that `linear_cross_entropy` needs. So whatever a family does before (T5 scales hidden states by
d_model^-0.5, BERT has another layer) or in making the decoder's input of the labels is done as it does it.

What comes after the output layer is found by trial: nothing, the layer's bias, or a constant bias as Marian and BART
have it. Where the model's own logits are none of these, as with a softcap, the loss is computed from them.
"""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import logging

from ...losses import IGNORE_INDEX, linear_cross_entropy, loss_of_logits

logger = logging.get_logger(__name__)

PROBE_TOKENS = 6
ALIGNMENT = 8  # columns of a matrix, for the sake of tensor cores


class _Reached(Exception):
    """The output layer is reached; its input is all that is wanted of the pass."""

    def __init__(self, hidden_states: torch.Tensor):
        super().__init__()
        self.hidden_states = hidden_states


def hidden_states_of(head: nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    """Return what a model gives to its output layer, (batch, seq_len, d_model), and stop it there.

    Args:
        head: The output layer.
        run: Calls the model.

    Raises:
        ValueError: The model does not call this layer.
    """

    def stop(_, inputs):
        raise _Reached(inputs[0])

    hook = head.register_forward_pre_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.hidden_states
    finally:
        hook.remove()
    raise ValueError("The model does not call its output layer.")


def with_bias(hidden_states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None):
    """Return hidden states and weight of a layer without bias that gives the same logits.

    Args:
        hidden_states: (..., d_model).
        weight: (vocab_size, d_model).
        bias: (vocab_size,), or None.
    """
    if bias is None:
        return hidden_states, weight
    width = ALIGNMENT - weight.shape[1] % ALIGNMENT
    ones = hidden_states.new_zeros(*hidden_states.shape[:-1], width)
    ones[..., 0] = 1
    column = nn.functional.pad(bias.to(weight.dtype).unsqueeze(-1), (0, width - 1))  # (vocab_size, width)
    return torch.cat([hidden_states, ones], dim=-1), torch.cat([weight, column], dim=-1)


def biases_of(model: PreTrainedModel, name: str | None) -> torch.Tensor | None:
    """Return the bias that is added to the logits: "head" for the output layer's own, else a buffer of the model."""
    if name is None:
        return None
    return model.get_output_embeddings().bias if name == "head" else getattr(model, name).flatten()


def is_plain(head: nn.Module | None) -> bool:
    """Return whether an output layer is a linear one, and not one that was given an adapter."""
    return type(head) is nn.Linear


@torch.no_grad()
def find_bias(model: PreTrainedModel) -> tuple[bool, str | None]:
    """Try a few tokens on a model: are its logits those of its output layer, and with which bias?

    Returns:
        Whether they are; the name of the bias, None without one or where it is zero.
    """
    head = model.get_output_embeddings()
    if not is_plain(head):
        return False, None
    ids = torch.arange(PROBE_TOKENS, device=head.weight.device).unsqueeze(0) % len(head.weight)  # (1, tokens)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    was_training = model.training
    model.eval()
    try:
        hidden = hidden_states_of(head, lambda: model(**inputs))
        own = model(**inputs).logits  # (1, tokens, vocab_size)
        names: list[str | None] = [None, "head", "final_logits_bias"]
        present = [name for name in names if name in (None, "head") or hasattr(model, name)]
        for name in present:
            bias = biases_of(model, name)
            if name is not None and (bias is None or bias.shape != head.weight.shape[:1]):
                continue
            ours = hidden @ head.weight.T + (0 if bias is None else bias)
            if own.shape == ours.shape and torch.allclose(own, ours, rtol=1e-4, atol=1e-4 * float(own.abs().max())):
                is_learned = name == "head"  # a learned bias that is zero now will not stay so
                return True, name if is_learned or (bias is not None and bool(bias.any())) else None
    except Exception as error:  # code of any family: the loss of its logits is always possible
        logger.debug(f"{type(model).__name__} could not be tried: {error}")
    finally:
        model.train(was_training)
    return False, None


def shift_left(labels: torch.Tensor) -> torch.Tensor:
    """Return for each position the label of the next one, (batch, seq_len): what a decoder alone predicts there."""
    return torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), IGNORE_INDEX)], dim=-1)


def give_exact_loss(model: PreTrainedModel, label_smoothing: float = 0.0, predicts_next: bool = False) -> None:
    """Let a model's forward() take what ours take: `num_items_in_batch`, `label_smoothing` and `skip_logits`.

    Without `labels` it is called as before.

    Args:
        model: Of any family; changed in place. Its weights, names and files stay the same.
        label_smoothing: Where the caller names none.
        predicts_next: Whether the labels are the input, and each position predicts the next one.
    """
    chooses_tokens = model.get_output_embeddings() is not None
    is_found, bias_name = find_bias(model) if chooses_tokens else (False, None)
    if chooses_tokens and not is_found:
        logger.warning(
            f"{type(model).__name__} changes the logits after its output layer, or has another kind of it: the loss "
            "is computed from whole logits, exact as ever, with more memory."
        )
    names = inspect.signature(type(model).forward).parameters
    no_cache = {"use_cache": False} if "use_cache" in names else {}
    makes_decoder_input = bool(model.config.is_encoder_decoder)
    original = type(model).forward
    default_smoothing = label_smoothing

    def forward(self, *args, labels=None, num_items_in_batch=None, label_smoothing=None, skip_logits=None, **inputs):
        if labels is None:
            return original(self, *args, **inputs)
        smoothing = default_smoothing if label_smoothing is None else label_smoothing
        given = no_cache | inputs | ({"labels": labels} if makes_decoder_input and chooses_tokens else {})
        targets = shift_left(labels) if predicts_next else labels
        head = self.get_output_embeddings() if is_found else None
        if is_plain(head) and (self.training if skip_logits is None else skip_logits):
            hidden = hidden_states_of(head, lambda: original(self, *args, **given))
            weight = head.weight.full_tensor() if hasattr(head.weight, "full_tensor") else head.weight
            hidden, weight = with_bias(hidden, weight, biases_of(self, bias_name))
            loss = linear_cross_entropy(hidden, weight, targets, smoothing, num_items_in_batch)
            return Seq2SeqLMOutput(loss=loss)
        outputs = original(self, *args, **given)
        outputs.loss = loss_of_logits(outputs.logits, targets, smoothing, num_items_in_batch)
        return outputs

    # `generate` asks which inputs a model takes.
    forward.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    model.forward = MethodType(forward, model)  # type: ignore[method-assign]
