"""Four mistakes that tutorial code of the course is known for, made on purpose: each must be noticed (docs/course.md).

For each there is a check that our model passes, and a mutant, the model with the mistake in it, that must fail it.
None of the four stops a model from running or its loss from falling, which is why they live so long.
"""

import math

import pytest
import torch
from torch import nn

from fun_transformer import modeling_fun_transformer as modeling
from fun_transformer.losses import linear_cross_entropy
from fun_transformer.positions import SinusoidalPositions

# ── 1. positions indexed by batch: `x + pe[: x.size(0)]`, where x is (batch, seq_len, d_model) ────────────────────


def index_positions_by_batch(patch):
    right = SinusoidalPositions.forward

    def wrong(self, position_ids, length):
        rows = torch.arange(position_ids.shape[0]).unsqueeze(-1).expand_as(position_ids)  # (batch, seq_len)
        return right(self, rows, length)

    patch.setattr(SinusoidalPositions, "forward", wrong)


def rows_may_change_places(model, batch):
    """A sentence means the same in whichever row of the batch it stands."""
    logits = model(**batch).logits
    turned = model(**{name: tensor.flip(0) for name, tensor in batch.items()}).logits.flip(0)
    torch.testing.assert_close(turned, logits, rtol=0, atol=1e-5)


# ── 2. a LayerNorm made inside forward: fresh weights at every call, which nothing ever trains ────────────────────


def make_norms_inside_forward(patch):
    def wrong(norm, dropout, sublayer, hidden_states):
        return nn.LayerNorm(hidden_states.shape[-1])(hidden_states + dropout(sublayer(hidden_states)))

    patch.setitem(modeling.RESIDUALS, "post", wrong)


def every_parameter_is_trained(model, batch):
    """After a backward pass each parameter has a gradient."""
    model(**batch).loss.backward()
    untrained = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untrained == []


# ── 3. the wrong pad id on the target side: the source's, when the loss asks which labels are padding ─────────────


def use_the_wrong_pad_id(patch):
    def wrong(self, hidden_states, output_layer, labels, label_smoothing, num_items_in_batch):
        pad_of_the_source = 3
        labels = labels.masked_fill(labels == pad_of_the_source, -100)
        return linear_cross_entropy(hidden_states, output_layer.weight, labels, 0.0, num_items_in_batch)

    patch.setattr(modeling.FunTransformerPreTrainedModel, "token_loss", wrong)


def target_padding_costs_nothing(model, batch):
    """The loss of a batch is the mean over its tokens, however the shorter rows are filled up."""
    by_token = []
    for row, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"]):
        labels = labels[labels != -100]
        alone = model(input_ids=row[mask == 1].unsqueeze(0), labels=labels.unsqueeze(0), label_smoothing=0.0)
        by_token += [alone.loss.detach()] * len(labels)
    filled = batch["labels"].masked_fill(batch["labels"] == -100, model.config.pad_token_id)
    loss = model(**{**batch, "labels": filled}, label_smoothing=0.0).loss
    torch.testing.assert_close(loss, torch.stack(by_token).mean(), rtol=1e-5, atol=1e-5)


# ── 4. the exponent of the encoding doubled: 10000^(2 * 2i / d_model), where `arange(0, d, 2)` is 2i already ──────


def double_the_exponent(patch):
    def wrong(self, position_ids, length):
        two_i = torch.arange(0, self.d_model, 2)  # (d_model / 2,)
        angles = position_ids.unsqueeze(-1) / 10000.0 ** (2 * two_i / self.d_model)  # (batch, seq_len, d_model / 2)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (batch, seq_len, d_model)

    patch.setattr(SinusoidalPositions, "forward", wrong)


def positions_are_those_of_the_paper(model, batch):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos of the same, number by number."""
    d_model = model.config.d_model
    found = model.model.encoder.embed_positions(torch.arange(20).unsqueeze(0), 20)[0]  # (seq_len, d_model)
    for position in range(20):
        for i in range(d_model // 2):
            angle = position / 10000 ** (2 * i / d_model)
            assert math.isclose(found[position, 2 * i], math.sin(angle), abs_tol=1e-5)
            assert math.isclose(found[position, 2 * i + 1], math.cos(angle), abs_tol=1e-5)


MISTAKES = [
    pytest.param(index_positions_by_batch, rows_may_change_places, id="positions-by-batch"),
    pytest.param(make_norms_inside_forward, every_parameter_is_trained, id="norm-inside-forward"),
    pytest.param(use_the_wrong_pad_id, target_padding_costs_nothing, id="wrong-pad-id"),
    pytest.param(double_the_exponent, positions_are_those_of_the_paper, id="exponent-doubled"),
]


@pytest.mark.parametrize(("mistake", "check"), MISTAKES)
def test_the_model_does_not_make_the_mistake(mistake, check, tiny_model, tiny_batch):
    check(tiny_model(), tiny_batch)


@pytest.mark.parametrize(("mistake", "check"), MISTAKES)
def test_the_mistake_would_be_noticed(mistake, check, tiny_model, tiny_batch, monkeypatch):
    mistake(monkeypatch)
    model = tiny_model()
    assert torch.isfinite(model(**tiny_batch).loss)  # it runs as if nothing were wrong
    with pytest.raises(AssertionError):
        check(model, tiny_batch)
