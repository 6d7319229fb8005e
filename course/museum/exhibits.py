"""What the museum shows: one mistake in each model, and the check that finds it before any training.

A broken model differs from `SmallTransformer` in a method or two. Each of them runs, most of them learn something, and
none raises an error. docs/museum.md is made of this file.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from course.museum.model import IGNORED, PAD, SmallTransformer, make_batch

# ── the broken models ──


class SeesTheAnswer(SmallTransformer):
    def target_mask(self, length):
        return torch.ones(length, length, dtype=torch.bool)


class RowsOfMinusInfinity(SmallTransformer):
    def source_mask(self, source):
        is_token = source != PAD
        return (is_token[:, :, None] & is_token[:, None, :])[:, None]  # (batch, 1, source_len, source_len)

    def weigh(self, scores, may_attend):
        return scores.masked_fill(~may_attend, float("-inf")).softmax(-1)


class LabelsNotShifted(SmallTransformer):
    def decoder_inputs(self, labels):
        return labels.masked_fill(labels == IGNORED, PAD)


class LabelsShiftedTwice(SmallTransformer):
    def loss(self, logits, labels):
        logits, labels = logits[:, :-1], labels[:, 1:]  # decoder_inputs has shifted them already
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


class PositionsByBatch(SmallTransformer):
    def positions(self, ids, first=0):
        return self.encode_places(torch.arange(ids.shape[0]))[:, None]  # (batch, 1, d_model): pe[: x.size(0)]


class EmbeddingsNotScaled(SmallTransformer):
    def embed(self, ids):
        return self.embedding(ids)


class PaddingAttendedTo(SmallTransformer):
    def source_mask(self, source):
        return torch.ones(source.shape[0], 1, 1, source.shape[1], dtype=torch.bool)


class NormInForward(SmallTransformer):
    def add_and_norm(self, number, states, added):
        return nn.LayerNorm(self.d_model)(states + added)


class LossCountsPadding(SmallTransformer):
    def loss(self, logits, labels):
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.masked_fill(labels == IGNORED, PAD).flatten())


class CacheWithoutPositions(SmallTransformer):
    def place_of(self, step):
        return 0  # a step reads one token, and the first token it reads is at place 0


class TiedWeightsComeApart(SmallTransformer):
    def save(self, path):
        weights = self.state_dict()
        del weights["output.weight"]  # it is the embedding's
        torch.save(weights, path)

    def load(self, path):
        weights = torch.load(path)
        self.embedding = nn.Embedding.from_pretrained(weights["embedding.weight"], freeze=False)
        self.load_state_dict(weights, strict=False)


# ── the checks: each takes a class, makes a model of random weights, and is False where the mistake is ──


def build(kind: type[SmallTransformer]) -> tuple[SmallTransformer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return kind(), *make_batch(4, torch.Generator().manual_seed(0))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def no_logit_depends_on_its_own_label(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    other = labels.clone()
    other[:, 2] = 5 + (labels[:, 2] == 5).long()  # any other token
    return close(model(source, other)[:, :3], model(source, labels)[:, :3])


def rows_with_padding_are_finite(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    return bool(model(source, labels).isfinite().all())


def a_right_answer_costs_nothing(kind: type[SmallTransformer]) -> bool:
    model, _, labels = build(kind)
    sure = 100.0 * nn.functional.one_hot(labels.clamp(min=0), 13)  # logits that say each label
    return model.loss(sure, labels).item() < 0.01


def rows_may_change_places(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    return close(model(source.flip(0), labels.flip(0)).flip(0), model(source, labels))


def embeddings_are_as_large_as_positions(kind: type[SmallTransformer]) -> bool:
    model, source, _ = build(kind)
    return 0.5 < (model.embed(source).std() / model.positions(source).std()).item() < 2


def padding_changes_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    longer = nn.functional.pad(source, (0, 3), value=PAD)
    return close(model(longer, labels), model(source, labels))


def every_parameter_is_trained(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    model.loss(model(source, labels), labels).backward()
    return all(parameter.grad is not None for parameter in model.parameters())


def padding_costs_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    logits = model(source, labels)
    longer, more = nn.functional.pad(labels, (0, 3), value=IGNORED), nn.functional.pad(logits, (0, 0, 0, 3))
    return close(model.loss(more, longer), model.loss(logits, labels))


def a_cache_changes_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    target, encoded = labels.clamp(min=PAD)[:, :3], model.encode(source)
    past: dict[str, torch.Tensor] = {}
    steps = [model.decode(target[:, i : i + 1], encoded, source, past, model.place_of(i)) for i in range(3)]
    return close(torch.cat(steps, dim=1), model.decode(target, encoded, source))


def a_saved_model_comes_back(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.pt"))
        loaded = kind()
        loaded.load(Path(folder, "model.pt"))
    return close(loaded(source, labels), model(source, labels)) and loaded.output.weight is loaded.embedding.weight


# ── the rooms ──


class Exhibit(NamedTuple):
    """A mistake that people make.

    Attributes:
        title: In Chinese and in English.
        broken: The model that makes it.
        check: False for that model, True for the right one.
        symptom: What is seen, in Chinese and in English.
        mend: In Chinese and in English.
    """

    title: tuple[str, str]
    broken: type[SmallTransformer]
    check: Callable[[type[SmallTransformer]], bool]
    symptom: tuple[str, str]
    mend: tuple[str, str]

    @property
    def methods(self) -> list[str]:
        """The methods that differ from the right ones."""
        return [name for name in vars(self.broken) if not name.startswith("__")]


EXHIBITS: list[Exhibit] = []
