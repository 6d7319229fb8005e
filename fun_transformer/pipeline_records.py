"""What a result holds beside its text: how probable it is, what it looked at, which words belong together.

A generated sequence is read once more to find out. The records of the parts of a text become one record here, too.
"""

import copy
import inspect
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedModel

from .pipeline_options import max_length_of
from .text_parts import join_texts

# What return_scores adds beside the tokens, and what is a mean over them; what return_alignments adds.
FIGURES = ("log_probability", "mean_log_probability", "min_log_probability", "entropy", "score")
MEANS = ("mean_log_probability", "entropy", "score")
LISTS = ("token_log_probabilities", "target_tokens")
ALIGNED = ("alignment", "source_words", "target_words")


def reading_copy(model: PreTrainedModel, attn_implementation: str | None = None) -> PreTrainedModel:
    """Return a model with the same weights in eval mode, and with another attention kernel where one is named.

    Only modules and configs are copied, so that other threads may go on using the model as it is.
    """
    weights = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    model = copy.deepcopy(model, weights)  # what is in this memo is not copied
    for part in model.modules():
        forward = inspect.unwrap(vars(part).get("forward", part.forward), stop=inspect.ismethod)
        if getattr(forward, "__self__", part) is not part:  # compiled: still that of the model that was copied
            del part.forward
        # One by one: before transformers 5.20 the model does not tell stacks with a config of their own, as T5's.
        if attn_implementation is not None and isinstance(part, PreTrainedModel):
            part.set_attn_implementation(attn_implementation)
    return model.eval()


def inspect_sequences(
    model, model_inputs, output_ids, params: dict, return_scores: bool, return_attention: bool
) -> dict[str, torch.Tensor]:
    """Read generated sequences once more, all tokens at a time, to find out how the model came to them.

    Args:
        model: The model that generated them.
        model_inputs: `input_ids` and `attention_mask`, each (batch, source_len).
        output_ids: (batch * sequences, 1 + target_len), beginning with the decoder's start token.
        params: Of the generation.
        return_scores: Find `log_probs`.
        return_attention: Find `weights`.

    Returns:
        `is_source` (batch * sequences, source_len) and `is_target` (batch * sequences, target_len), false for
        padding; `source_ids`; `log_probs` (batch * sequences, target_len), log p(token | tokens before, source) of
        the model itself, whatever the search made of it; `weights` (batch * sequences, layers, heads, target_len,
        source_len).
    """
    batch, _ = model_inputs["input_ids"].shape
    inputs = {name: rows.repeat_interleave(len(output_ids) // batch, dim=0) for name, rows in model_inputs.items()}
    target_ids = output_ids[:, 1:]  # (batch * sequences, target_len)
    is_eos = is_eos_of(target_ids, params)
    found = {
        "source_ids": inputs["input_ids"],
        "is_source": inputs["attention_mask"].bool(),
        "is_target": is_eos.cumsum(-1) - is_eos.long() == 0,  # up to the first </s>
    }
    reader = reading_copy(model, "eager") if return_attention else model  # eager attention alone returns weights
    outputs = reader(
        **inputs, decoder_input_ids=output_ids[:, :-1], output_attentions=return_attention, use_cache=False
    )
    if return_scores:
        found |= _figures(outputs.logits, target_ids, found["is_target"], params)
    if return_attention:
        if not outputs.cross_attentions:
            raise ValueError(f"{type(model).__name__} returned no cross-attention weights.")
        found["weights"] = torch.stack(tuple(outputs.cross_attentions), dim=1)
    return found


def findings(tokenizer, row: dict[str, torch.Tensor]) -> dict:
    """Return what `inspect_sequences` found in one sequence, without padding."""
    is_target, is_source = row["is_target"], row["is_source"]
    # Our tokenizers may have a vocabulary of its own for the target.
    to_tokens = getattr(tokenizer, "convert_target_ids_to_tokens", tokenizer.convert_ids_to_tokens)
    found = {"target_tokens": to_tokens(row["output_ids"][1:][is_target].tolist())}
    if "log_probs" in row:
        log_probs = row["log_probs"][is_target].tolist()
        found |= {name: row[name].item() for name in FIGURES}
        found |= {"log_probability": sum(log_probs), "token_log_probabilities": log_probs}
    if "weights" in row:
        found["source_tokens"] = tokenizer.convert_ids_to_tokens(row["source_ids"][is_source].tolist())
        found["attention"] = row["weights"][:, :, is_target][..., is_source]  # (layers, heads, target, source)
    return found


def _figures(logits, target_ids, is_target, params: dict) -> dict[str, torch.Tensor]:
    """Return how probable target tokens are: `log_probs` (sequences, target_len), and `FIGURES` (sequences).

    Tokens that the model did not choose have log p = 0 and no part in the means. These are a forced first token, the
    target language, and a `</s>` that is forced at the greatest length.

    Args:
        logits: (sequences, target_len, vocab_size).
        target_ids: (sequences, target_len).
        is_target: False for padding, (sequences, target_len).
        params: Of the generation.
    """
    all_log_probs = logits.float().log_softmax(-1)  # (sequences, target_len, vocab_size)
    name, max_length = max_length_of(params)
    is_chosen = is_target.clone()  # (sequences, target_len)
    if params.get("forced_bos_token_id") is not None:
        is_chosen[:, 0] = False
    longest = max_length if name == "max_new_tokens" else max_length - 1  # `max_length` counts the start token
    if params.get("forced_eos_token_id") is not None and target_ids.shape[1] == longest:
        is_chosen[:, -1] = False
    log_probs = all_log_probs.gather(-1, target_ids[..., None])[..., 0] * is_chosen  # (sequences, target_len)
    entropies = torch.special.entr(all_log_probs.exp()).sum(-1) * is_chosen  # (sequences, target_len)
    total, count = log_probs.sum(-1), is_chosen.sum(-1).clamp_min(1)
    return {
        "log_probs": log_probs,
        "log_probability": total,
        "mean_log_probability": total / count,
        "min_log_probability": log_probs.min(-1).values,
        "entropy": entropies.sum(-1) / count,
        "score": total / is_target.sum(-1) ** params.get("length_penalty", 1.0),
    }


def is_eos_of(target_ids: torch.Tensor, params: dict) -> torch.Tensor:
    """Return where tokens end a text, of the shape of `target_ids`."""
    eos = params.get("eos_token_id")
    return torch.isin(target_ids, torch.tensor([] if eos is None else eos, device=target_ids.device).long())


def join_records(parts: list[str], records: list[dict]) -> dict:
    """Join the records of the parts of a text into one.

    Texts are joined by the line breaks or spaces that were between the parts, else by a space, but without one next
    to Chinese and Japanese. Log-probabilities add up, means are those over all tokens; attention becomes a matrix with
    a block for each part, 0 outside them. What one part does not have (None), the whole has not.
    """
    joined = dict(records[0])
    for part, record in zip(parts, records[1:]):
        joined = {name: _join_field(name, joined, record, part) for name in joined}
    return joined


def _join_field(name: str, left: dict, right: dict, part: str) -> Any:
    """Join one field of two records; `part` is what the left one was made of."""
    first, second = left[name], right.get(name)
    if first is None or second is None:
        return None
    if name.endswith("_text"):
        return join_texts(first, second, part)
    if name == "attention":
        return _block_diagonal(first, second)
    if name.endswith("_token_ids"):
        return torch.cat([first, second])
    if name == "alignment":
        return " ".join(filter(None, [first, _moved(second, len(left["source_words"]), len(left["target_words"]))]))
    if name in ("faults", "fallbacks", "faults_left"):
        return [*first, *(fault for fault in second if fault not in first)]
    if name == "finished":
        return first and second
    if name in ("min_log_probability", "utility"):
        return min(first, second)
    if name in MEANS:
        counts = len(left["target_tokens"]), len(right["target_tokens"])
        return (first * counts[0] + second * counts[1]) / max(sum(counts), 1)
    return first + second


def _moved(alignment: str, source: int, target: int) -> str:
    """Return an alignment of words that have this many others before them."""
    links = [link.split("-") for link in alignment.split()]
    return " ".join(f"{int(i) + source}-{int(j) + target}" for i, j in links)


def _block_diagonal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Join two maps (layers, heads, target_len, source_len) into one, whose lengths are the sums of theirs."""
    target_len, source_len = first.shape[-2:]
    right, below = second.shape[-1], second.shape[-2]
    return torch.nn.functional.pad(first, (0, right, 0, below)) + torch.nn.functional.pad(
        second, (source_len, 0, target_len, 0)
    )
