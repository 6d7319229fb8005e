"""Which source word is each target word the translation of? Alignments from cross-attention, or from gradients.

The attention weights of a trained model are soft alignments (Bahdanau et al. 2015), but not those of every layer:
Garg et al. (2019) find the penultimate one best. Nor at every step: weights of the step that reads y_t may
tell more of y_t than those of the step that chose it (Chen et al. 2020). `choose_heads` finds the layer,
the head or the mean of all, and the step on data. Where a model has no weights to show, the gradient tells: source
token s counts sum_i |x_si dz_t / dx_si| for target token t (after Ding et al. 2019), x_s its embedding and z_t the
logit of y_t. Log-probabilities for logits, and sums before absolute values, gave more errors (docs/decoding.md).

    >>> alignment = Aligner(model, tokenizer).align(["今天吃什么好"], ["What shall we eat today?"])[0]
    >>> str(alignment), alignment.source_words, alignment.target_words
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..pipeline_records import reading_copy
from .links import Gold, Links, alignment_error_rate, mutual_information
from .sequences import Sequences, check_encoder_decoder, generated, given, length_batches
from .words import Splitter, split_words, token_spans, word_shares, word_spans

Maps = dict[str, torch.Tensor]  # by step: weights (layers, heads, target words, source words)
Pair = tuple[str, str]  # a source and a target text
TIE = 1e-3  # how little weights that count as equal differ


@dataclass(frozen=True)
class Heads:
    """Where in a model the alignment is read.

    Attributes:
        layer: Of the decoder, counted from 0; None for the gradient.
        head: Of this layer; None for the mean of all.
        step: "choosing" for the weights of the step that chose a token, "reading" for the next, which reads it.
    """

    layer: int | None
    head: int | None = None
    step: str = "choosing"


@dataclass(frozen=True)
class Alignment:
    """The word alignment of a source and a target.

    Attributes:
        source_words: The words of the source.
        target_words: The words of the target.
        links: Pairs (source word, target word), both counted from 0, sorted.
    """

    source_words: list[str]
    target_words: list[str]
    links: Links

    def __str__(self) -> str:
        """Return the links in Pharaoh format: "0-0 1-2"."""
        return " ".join(f"{source}-{target}" for source, target in self.links)


class Aligner:
    """Aligns the words of sources and targets by a model.

    Args:
        model: An encoder-decoder of transformers, which may be in use by other threads: a copy with the same weights
            runs, in eval mode and with eager attention, which alone returns weights.
        tokenizer: The model's tokenizer.
        heads: Where the alignment is read, as `choose_heads` returns it. By default `default_heads`, or the gradient
            where the model returns no weights.
        split: Cuts a text into words.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        heads: Heads | None = None,
        split: Splitter = split_words,
    ):
        check_encoder_decoder(model)
        self.model = reading_copy(model, "eager")
        self.tokenizer, self.heads, self.split = tokenizer, heads, split

    def align(self, sources: list[str], targets: list[str], batch_size: int = 32) -> list[Alignment]:
        """Align given pairs of texts, in the order given."""
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources and {len(targets)} targets: each source needs one target.")
        pairs = list(zip(sources, targets))
        found: dict[int, Alignment] = {}
        for batch, heads, maps in self.read(pairs, batch_size):
            found |= {i: self._alignment(pairs[i], select(one, heads)) for i, one in zip(batch, maps)}
        return [found[i] for i in range(len(pairs))]

    def align_generated(self, sources: list[str], model_inputs, output_ids: torch.Tensor) -> list[Alignment]:
        """Align sources with what was generated for them.

        Args:
            sources: The source texts.
            model_inputs: `input_ids` and `attention_mask` of them, each (batch, source_len).
            output_ids: What `generate` returned: (batch * sequences, 1 + target_len).

        Returns:
            An alignment for each row of `output_ids`, whose target is the decoded text.
        """
        sequences = generated(self.model, model_inputs, output_ids)
        targets = self.tokenizer.batch_decode(output_ids, skip_special_tokens=True)
        repeats = len(output_ids) // len(sources)
        pairs = [(sources[i // repeats], target) for i, target in enumerate(targets)]
        heads, maps = self._maps(sequences, pairs)
        return [self._alignment(pair, select(one, heads)) for pair, one in zip(pairs, maps)]

    def read(self, pairs: list[Pair], batch_size: int = 32) -> Iterator[tuple[list[int], Heads, list[Maps]]]:
        """Yield, by batches of like length, the numbers of the pairs, the heads to read and the maps of each pair."""
        for batch in length_batches(pairs, batch_size):
            chosen = [pairs[i] for i in batch]
            sources, targets = (list(side) for side in zip(*chosen))
            yield batch, *self._maps(given(self.model, self.tokenizer, sources, targets), chosen)

    def _alignment(self, pair: Pair, weights: torch.Tensor) -> Alignment:
        return Alignment(self.split(pair[0]), self.split(pair[1]), links_of(weights))

    def _maps(self, sequences: Sequences, pairs: list[Pair]) -> tuple[Heads, list[Maps]]:
        """Return which heads to read, and the maps between the words of each pair."""
        weights, heads = self._weights(sequences)  # (rows, layers, heads, target_len, source_len)
        return heads, [self._word_maps(sequences, row, weights[row], pair) for row, pair in enumerate(pairs)]

    def _weights(self, sequences: Sequences) -> tuple[torch.Tensor, Heads]:
        """Return weights (rows, layers, heads, target_len, source_len), and which of them tell the alignment."""
        if self.heads is None or self.heads.layer is not None:
            with torch.no_grad():
                attentions = sequences.read(self.model, output_attentions=True).cross_attentions
            if attentions:
                weights = torch.stack(tuple(attentions), dim=1)
                return weights.float().cpu(), self.heads or default_heads(weights.shape[1])
            if self.heads is not None:
                raise ValueError(
                    f"{type(self.model).__name__} returns no attention weights. Leave heads=None, or give "
                    "Heads(None) for the gradient."
                )
        return saliency(self.model, sequences).cpu(), Heads(None)

    def _word_maps(self, sequences: Sequences, row: int, weights: torch.Tensor, pair: Pair) -> Maps:
        """Return the maps between the words of one pair from weights (layers, heads, target_len, source_len)."""
        is_source = sequences.inputs["attention_mask"][row].bool().cpu()
        is_target = sequences.is_target[row].cpu()
        weights = weights[:, :, is_target][..., is_source]  # without padding
        ids = sequences.inputs["input_ids"][row].cpu()[is_source], sequences.target_ids[row].cpu()[is_target]
        shares = []
        for text, token_ids, of_source in zip(pair, ids, (True, False)):
            spans = token_spans(self.tokenizer, token_ids.tolist(), text, of_source)
            shares.append(word_shares(spans, word_spans(text, self.split(text)), text))
        to_source, to_target = shares  # (source_len, source words), (target_len, target words)
        by_word = weights @ to_source  # (layers, heads, target_len, source words)
        mean = (to_target / to_target.sum(0).clamp_min(1e-9)).T  # (target words, target_len)
        later = torch.cat([by_word[:, :, 1:], by_word[:, :, -1:]], dim=2)  # of the step that reads the token
        return {"choosing": mean @ by_word, "reading": mean @ later}


def default_heads(layers: int) -> Heads:
    """Return where the alignment is read when no data chose: in the penultimate layer, in the last of up to three.

    Garg et al. measured six layers. Of our models with three, the last one aligned best (docs/decoding.md).
    """
    return Heads(layers - 2 if layers > 3 else layers - 1)


def select(maps: dict[str, torch.Tensor], heads: Heads) -> torch.Tensor:
    """Return the weights (target words, source words) of one choice of heads.

    Raises:
        ValueError: The model has no such layer, head or step.
    """
    if heads.step not in maps:
        raise ValueError(f"step={heads.step!r} is unknown. Choose one of {', '.join(map(repr, maps))}.")
    weights = maps[heads.step]  # (layers, heads, target words, source words)
    for name, index, count in (("layer", heads.layer, weights.shape[0]), ("head", heads.head, weights.shape[1])):
        if index is not None and not 0 <= index < count:
            raise ValueError(f"{name}={index} does not exist: the model has {name}s 0 to {count - 1}.")
    layer = weights[heads.layer or 0]  # (heads, target words, source words)
    return layer.mean(0) if heads.head is None else layer[heads.head]


def links_of(weights: torch.Tensor) -> Links:
    """Link each target word to the source word that weighs most, from weights (target words, source words).

    Words that weigh equally, such as those of one token, are all linked. A source word that many target words look at,
    as they do at a full stop when there is nothing to look at, weighs less: each is divided by the root of its sum.
    """
    if not weights.numel():
        return []
    weights = weights / weights.sum(0, keepdim=True).clamp_min(1e-9).sqrt()
    best = weights.max(-1, keepdim=True).values  # (target words, 1)
    linked = (weights >= (1 - TIE) * best) & (best > 0)
    return sorted((source, target) for target, source in linked.nonzero().tolist())


def saliency(model: PreTrainedModel, sequences: Sequences) -> torch.Tensor:
    """Return how much each source token counts for each target token, by gradient times input.

    Returns:
        (rows, 1, 1, target_len, source_len); each row of a target token sums to 1.
    """
    embeds: list[torch.Tensor] = []

    def keep(module, args, output):
        if not embeds:  # a decoder may use the same embedding, later
            embeds.append(output.detach().requires_grad_())
            return embeds[0]
        return output

    embedding = _source_embedding(model)
    handle = embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient of RNNs in eval
            logits = sequences.read(model).logits.float()  # (rows, target_len, vocab_size)
            picked = logits.gather(-1, sequences.target_ids[..., None])[..., 0].sum(0)  # (target_len)
            rows = []
            for t, logit in enumerate(picked):
                (gradient,) = torch.autograd.grad(logit, embeds[0], retain_graph=t + 1 < len(picked))
                rows.append((gradient * embeds[0]).abs().sum(-1).detach())  # (rows, source_len)
    finally:
        handle.remove()
    weights = torch.stack(rows, dim=1)  # (rows, target_len, source_len)
    weights = weights * sequences.inputs["attention_mask"][:, None]
    return (weights / weights.sum(-1, keepdim=True).clamp_min(1e-30))[:, None, None]


def _source_embedding(model: PreTrainedModel) -> torch.nn.Module:
    """Return the module that turns source ids into vectors."""
    encoder: Any = model.get_encoder()
    getter = getattr(encoder, "get_input_embeddings", None)
    return getter() if callable(getter) else model.get_input_embeddings()


def choose_heads(aligner: Aligner, sources: list[str], targets: list[str], gold: list[Gold] | None = None) -> Heads:
    """Find out where in a model the alignment is read best.

    With gold, the least alignment error rate decides. Without, the mutual information of the words that are linked:
    right links pair each word with few others, wrong ones pair it with anything. A few hundred pairs are needed then.

    Args:
        aligner: Of the model; its own heads do not count.
        sources: The source texts.
        targets: One text for each.
        gold: Their links.

    Returns:
        The heads; `Heads(None)`, the gradient, where the model returns no weights.
    """
    pairs = list(zip(sources, targets, strict=True))
    words = [(aligner.split(source), aligner.split(target)) for source, target in pairs]
    found: dict[Heads, dict[int, Links]] = {}
    for batch, heads, maps in aligner.read(pairs):
        for candidate in [heads] if heads.layer is None else candidates(maps[0]):
            links = {i: links_of(select(one, candidate)) for i, one in zip(batch, maps)}
            found.setdefault(candidate, {}).update(links)

    def error(heads: Heads) -> float:
        if gold is not None:
            return alignment_error_rate([found[heads][i] for i in range(len(pairs))], gold)
        linked = [(words[i][0][s], words[i][1][t]) for i, links in found[heads].items() for s, t in links]
        return -mutual_information(linked)

    return min(found, key=error)


def candidates(maps: Maps) -> list[Heads]:
    """Return all that may be chosen: the mean of each layer and each head, at both steps."""
    layers, heads = maps["choosing"].shape[:2]
    choices = [None, *range(heads)] if heads > 1 else [None]
    return [Heads(layer, head, step) for layer in range(layers) for head in choices for step in maps]
