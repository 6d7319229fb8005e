"""Exposure bias: a decoder is trained on true prefixes and used on its own (Ranzato et al. 2016, arXiv:1511.06732).

At each position t, the same question is asked twice: how likely is the true token y_t,

    teacher-forced   -log p(y_t | y_1 .. y_{t-1}, x)      after the true prefix, as in training
    free-running     -log p(y_t | z_1 .. z_{t-1}, x)      after the prefix z that the model wrote itself, greedily

The gap between both is what the model's own mistakes cost it. Where a source has one right answer (letters to
phonemes, SCAN, reversing), that is exposure bias, as the mistakes add up. Where it has many (translation), a good
prefix in other words also moves y_t to another place, so there the gap is an upper bound; compare models by it, or
look whether it grows with t (He et al. 2021, arXiv:1905.10617, argue that it hardly does).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..pipeline_records import reading_copy


@dataclass(frozen=True)
class ExposureGap:
    """Means by position; the first position has no prefix, so both sides agree there.

    Attributes:
        teacher_forced_loss: -log p of the true token after the true prefix, in nats (positions,).
        free_running_loss: The same after the model's own prefix (positions,).
        teacher_forced_accuracy: How often the true token is the likeliest one, 0 to 1 (positions,).
        free_running_accuracy: The same after the model's own prefix (positions,).
        counts: References that have this position (positions,).
    """

    teacher_forced_loss: list[float]
    free_running_loss: list[float]
    teacher_forced_accuracy: list[float]
    free_running_accuracy: list[float]
    counts: list[int]

    @property
    def mean_gap(self) -> float:
        """Free-running minus teacher-forced loss, a mean over all tokens."""
        gaps = zip(self.free_running_loss, self.teacher_forced_loss, self.counts, strict=True)
        return sum((free - forced) * count for free, forced, count in gaps) / sum(self.counts)


@torch.no_grad()
def exposure_gap(model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]) -> ExposureGap:
    """Measure both losses of a sequence-to-sequence model, which stays as it is: a copy of the same weights runs.

    The model's own prefix is as long as the true one: its end is held back until the reference has ended.

    Args:
        model: Any with `generate` that takes `labels` and `decoder_input_ids`.
        batches: Of `input_ids` (batch, source_len), `attention_mask`, and `labels` (batch, target_len), where -100 is
            padding at the end.

    Raises:
        ValueError: There is no label.
    """
    model = reading_copy(model)  # no dropout; the model itself stays as it is
    # Sums by position: losses, hits (teacher-forced, free-running).
    loss, hits, counts = torch.zeros(2, 0, dtype=torch.double), torch.zeros(2, 0), torch.zeros(0, dtype=torch.long)
    for batch in batches:
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        real = labels != -100  # (batch, target_len)
        both = [
            model(**batch, labels=labels).logits,  # (batch, target_len, vocab_size)
            model(**batch, decoder_input_ids=own_prefixes(model, batch, labels.shape[1])).logits,
        ]
        if (longer := labels.shape[1] - len(counts)) > 0:
            loss, hits, counts = (torch.nn.functional.pad(sums, (0, longer)) for sums in (loss, hits, counts))
        width = labels.shape[1]
        counts[:width] += real.sum(0).cpu()
        for side, logits in enumerate(both):
            true = labels.clamp_min(0).unsqueeze(-1)  # (batch, target_len, 1)
            losses = -logits.float().log_softmax(-1).gather(-1, true).squeeze(-1)  # (batch, target_len)
            loss[side, :width] += losses.masked_fill(~real, 0.0).sum(0).double().cpu()
            hits[side, :width] += ((logits.argmax(-1) == labels) & real).sum(0).cpu()
    if not counts.sum():
        raise ValueError("There is no label to predict: give batches with `labels` that are not all -100.")
    loss, hits, counts = (sums[..., counts > 0] for sums in (loss, hits, counts))
    forced_loss, free_loss = (loss / counts).tolist()
    forced_accuracy, free_accuracy = (hits / counts).tolist()
    return ExposureGap(forced_loss, free_loss, forced_accuracy, free_accuracy, counts.tolist())


def own_prefixes(model: PreTrainedModel, source: Mapping[str, torch.Tensor], length: int) -> torch.Tensor:
    """Generate what the decoder reads when it goes on by itself: its start token, then `length` - 1 greedy ones.

    Returns:
        (batch, length).
    """
    start = model.generation_config.decoder_start_token_id
    if length == 1:
        rows = source["input_ids"].shape[0]
        start = model.config.decoder_start_token_id if start is None else start
        return torch.full((rows, 1), start, device=model.device)
    limits = {"min_new_tokens": length - 1, "max_new_tokens": length - 1}
    return model.generate(**source, **limits, num_beams=1, do_sample=False)  # type: ignore[operator]
