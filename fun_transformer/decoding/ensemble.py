"""Beam search with several models of one vocabulary: the mean of their probabilities decides each token.

An ensemble is better than its members and as slow as all of them together; what it writes can teach a single model
(`training/distill.py`; Kim and Rush 2016, arXiv:1606.07947).
"""

from collections.abc import Sequence
from typing import Any

import torch


def check_ensemble(models: Sequence[Any]) -> None:
    """Refuse models that do not write the same tokens.

    Raises:
        ValueError: There is none, or their vocabularies or special tokens differ.
    """
    if not models:
        raise ValueError("An ensemble needs at least one model, got none.")
    names = ("decoder_vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id")
    first = models[0].config
    for number, model in enumerate(models[1:], 2):
        for name in names:
            found = [getattr(config, name, None) for config in (first, model.config)]
            if found[0] != found[1]:
                raise ValueError(
                    f"Model {number} of the ensemble has {name}={found[1]}, the first has {found[0]}. "
                    "Take models that were trained with the same tokenizer."
                )


@torch.inference_mode()
def generate_together(
    models: Sequence[Any],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    num_beams: int = 5,
    max_new_tokens: int = 256,
    length_penalty: float = 1.0,
) -> torch.Tensor:
    """Generate by beam search from the mean of the models' probabilities.

    A beam that has ended keeps its place and its score; of each source the beam with the highest
    log-probability / length ** length_penalty is returned.

    Args:
        models: Encoder-decoders in evaluation mode, on one device, that `check_ensemble` accepts.
        input_ids: (batch, source_len).
        attention_mask: (batch, source_len), 1 = token, 0 = padding.
        num_beams: Beams of each source; 1: greedy.
        max_new_tokens: Longest generated sequence.
        length_penalty: Exponent on the length; above 1 prefers longer sequences.

    Returns:
        Token ids without the start token, (batch, target_len), padded after `</s>`.

    Raises:
        ValueError: There are no beams, or the models do not write the same tokens.
    """
    check_ensemble(models)
    if num_beams < 1:
        raise ValueError(f"num_beams={num_beams} is no number of beams. Choose 1 (greedy) or more, such as 5.")
    config = models[0].config
    batch, device = len(input_ids), input_ids.device
    mask = attention_mask.repeat_interleave(num_beams, dim=0)  # (batch * beams, source_len)
    encoded = [
        model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.repeat_interleave(
            num_beams, dim=0
        )  # (batch * beams, source_len, d_model)
        for model in models
    ]
    caches: list[Any] = [None] * len(models)  # each model makes its own at the first step
    tokens = torch.full((batch * num_beams, 1), config.decoder_start_token_id, device=device)
    scores = torch.full((batch, num_beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams are alike at the start: one of them counts
    ended = torch.zeros((batch, num_beams), dtype=torch.bool, device=device)
    lengths = torch.zeros((batch, num_beams), device=device)
    first_row = torch.arange(batch, device=device)[:, None] * num_beams  # (batch, 1)
    for _ in range(max_new_tokens):
        outputs = [
            model(
                encoder_outputs=(states,),
                attention_mask=mask,
                decoder_input_ids=tokens[:, -1:],
                past_key_values=cache,
                use_cache=True,
            )
            for model, states, cache in zip(models, encoded, caches, strict=True)
        ]
        caches = [output.past_key_values for output in outputs]
        logits = [output.logits[:, -1] for output in outputs]  # (batch * beams, vocab_size) of each
        mean = torch.stack([one.float().log_softmax(-1) for one in logits]).logsumexp(0)  # + log(number of models)
        mean = mean.view(batch, num_beams, -1).log_softmax(-1)  # (batch, beams, vocab_size)
        mean[ended] = -torch.inf
        mean[..., config.pad_token_id] = torch.where(ended, 0.0, -torch.inf)
        best = (scores[..., None] + mean).flatten(1).topk(num_beams)  # (batch, beams)
        scores, beam, token = best.values, best.indices // mean.shape[-1], best.indices % mean.shape[-1]
        ended, lengths = ended.gather(1, beam), lengths.gather(1, beam)
        lengths += ~ended
        ended |= token == config.eos_token_id
        rows: Any = (first_row + beam).flatten()  # (batch * beams)
        tokens = torch.cat([tokens[rows], token.view(-1, 1)], dim=1)
        for cache in caches:
            # The source is the same for all beams of a row, so its keys and values stay.
            getattr(cache, "self_attention_cache", cache).reorder_cache(rows)
        if ended.all():
            break
    chosen = (scores / lengths**length_penalty).argmax(1, keepdim=True)  # (batch, 1)
    return tokens[(first_row + chosen).flatten(), 1:]
