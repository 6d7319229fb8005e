"""A model that copies tokens of its source, against the formula written with loops, and at a task that asks for it."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.conversion.marian import to_marian
from fun_transformer.copying import LEAST, CopyLayer
from fun_transformer.decoding import Ensemble
from fun_transformer.engines.ctranslate2_folder import check_model
from fun_transformer.masks import Packing

SIZES = {
    "vocab_size": 20,
    **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
}
SOURCE = torch.tensor([[5, 7, 5, 9, 2], [8, 6, 2, 0, 0]])
MASK = (SOURCE != 0).long()


def copying_model(**fields):
    torch.manual_seed(0)
    config = FunTransformerConfig(**SIZES | {"copy_attention": True, "dropout": 0.0} | fields)
    return FunTransformerForConditionalGeneration(config).eval()


def test_probabilities_are_those_of_the_formula():
    torch.manual_seed(0)
    layer = CopyLayer(FunTransformerConfig(**SIZES)).double()
    logits, states, source_states = torch.randn(2, 3, 20), torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    found = layer(logits.double(), states.double(), source_states.double(), SOURCE, MASK).exp().detach().numpy()
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    h, s, z = source_states.double().numpy(), states.double().numpy(), logits.double().numpy()
    for row in range(2):
        for place in range(3):
            query = weights["query.weight"] @ s[row, place] + weights["query.bias"]
            length = int(MASK[row].sum())
            keys = [weights["key.weight"] @ h[row, j] + weights["key.bias"] for j in range(length)]
            powers = np.exp([query @ key / 4 for key in keys])
            attention = powers / powers.sum()
            context = sum(a * h[row, j] for j, a in enumerate(attention))
            gate = weights["gate.weight"][0] @ np.concatenate([s[row, place], context]) + weights["gate.bias"][0]
            made = np.exp(z[row, place]) / np.exp(z[row, place]).sum() / (1 + np.exp(-gate))
            copied = np.full(20, LEAST)
            for token in set(SOURCE[row, :length].tolist()):
                copied[token] = sum(a for j, a in enumerate(attention) if SOURCE[row, j] == token)
            np.testing.assert_allclose(found[row, place], made + copied / (1 + np.exp(gate)), rtol=1e-6)


def test_the_logits_are_logarithms_of_probabilities_and_the_loss_is_theirs():
    model, labels = copying_model(), torch.tensor([[5, 9, 2], [6, 2, -100]])
    outputs = model(SOURCE, attention_mask=MASK, labels=labels)
    torch.testing.assert_close(outputs.logits.exp().sum(-1), torch.ones(2, 3))
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_what_its_rows_give_and_teacher_forcing_agrees(beams):
    model = copying_model()
    settings = {"num_beams": beams, "max_new_tokens": 6, "do_sample": False}
    together = model.generate(SOURCE, attention_mask=MASK, **settings)
    for row, length in ((0, 5), (1, 3)):
        alone = model.generate(SOURCE[row : row + 1, :length], **settings)[0]
        assert alone.tolist() == together[row][: len(alone)].tolist()
        if beams == 1:
            outputs = model(SOURCE[row : row + 1], attention_mask=MASK[row : row + 1], decoder_input_ids=alone[None])
            assert outputs.logits.argmax(-1)[0, :-1].tolist() == alone[1:].tolist()


@pytest.mark.slow
def test_a_token_that_no_target_had_is_copied():
    """Half of the tokens are in no training row: only copying can bring them into an answer."""
    model = copying_model(label_smoothing=0.0, d_model=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        source = torch.cat([torch.randint(3, 11, (32, 4)), torch.full((32, 1), 2)], dim=1)
        optimizer.zero_grad()
        model(source, labels=source).loss.backward()
        optimizer.step()
    unseen = torch.cat([torch.randint(11, 20, (50, 4)), torch.full((50, 1), 2)], dim=1)
    found = model.eval().generate(unseen, max_new_tokens=5, do_sample=False)[:, 1:5]
    assert found.shape == (50, 4) and torch.isin(found, torch.arange(11, 20)).float().mean() > 0.5


def test_it_is_saved_and_loaded(tmp_path):
    model = copying_model()
    model.save_pretrained(tmp_path)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(tmp_path)
    expected = model(SOURCE, attention_mask=MASK, labels=SOURCE).loss
    assert torch.equal(loaded(SOURCE, attention_mask=MASK, labels=SOURCE).loss, expected)
    assert "copy_attention" in json.loads((tmp_path / "config.json").read_text())
    copying_model(copy_attention=False).save_pretrained(tmp_path / "plain")
    assert "copy_attention" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert "copy_layer.gate.weight" not in copying_model(copy_attention=False).state_dict()


def test_the_source_is_needed_beside_what_was_encoded():
    model = copying_model()
    encoded = model.get_encoder()(SOURCE, attention_mask=MASK)
    with pytest.raises(ValueError, match="pass input_ids, or decoder_source_ids beside encoder_outputs"):
        model.generate(encoder_outputs=encoded, attention_mask=MASK, max_new_tokens=3)
    given = {"encoder_outputs": encoded, "attention_mask": MASK, "max_new_tokens": 3}
    found = model.generate(decoder_source_ids=SOURCE, **given)
    assert torch.equal(found, model.generate(SOURCE, attention_mask=MASK, max_new_tokens=3))


def test_packed_rows_copy_each_from_its_own_source():
    torch.manual_seed(0)
    layer, logits = CopyLayer(FunTransformerConfig(**SIZES)), torch.randn(1, 2, 20)
    states, source_states = torch.randn(1, 2, 16), torch.randn(1, 4, 16)
    segments: Packing = {
        "source_segment_ids": torch.tensor([[1, 1, 2, 2]]),
        "target_segment_ids": torch.tensor([[1, 2]]),
    }
    ids = torch.tensor([[5, 6, 7, 8]])
    packed = layer(logits, states, source_states, ids, packing=segments)
    for place, part in ((0, slice(0, 2)), (1, slice(2, 4))):
        own = layer(logits[:, [place]], states[:, [place]], source_states[:, part], ids[:, part])
        torch.testing.assert_close(packed[:, [place]], own)


def test_what_cannot_copy_refuses():
    model = copying_model()
    with pytest.raises(StrictDataclassError, match="both need one vocabulary"):
        FunTransformerConfig(copy_attention=True, share_encoder_decoder_embeddings=False)
    with pytest.raises(ValueError, match="copy_attention"):
        check_model(model)
    with pytest.raises(ValueError, match="copies tokens of the source"):
        to_marian(model)
    with pytest.raises(ValueError, match="Model 1 of the ensemble copies tokens"):
        Ensemble([model])
