import json

import pytest
import torch

from fun_transformer.decoding import check_ensemble, generate_together
from fun_transformer.training.distill import main


@pytest.fixture
def models(tiny_model):
    """Two models that disagree: the fixture's weights, and the same with noise."""
    made = [tiny_model(), tiny_model()]
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in made[1].parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


def inputs():
    ids = torch.tensor([[5, 6, 7, 8, 2], [9, 5, 2, 0, 0], [7, 2, 0, 0, 0]])
    return ids, (ids != 0).long()


def enumerate_best(models, source):
    """The one or two tokens with the highest mean probability, found by trying all; padding is never written."""
    vocab = models[0].config.decoder_vocab_size

    def mean(prefix):
        start = torch.tensor([[1, *prefix]])
        logits = [model(input_ids=source[None], decoder_input_ids=start).logits[0, -1] for model in models]
        return torch.stack([one.softmax(-1) for one in logits]).mean(0)  # (vocab_size,)

    first = mean([])
    found = {(2,): first[2].item()}
    for token in set(range(vocab)) - {0, 2}:
        second = first[token] * mean([token])
        found |= {(token, after): second[after].item() for after in range(1, vocab)}
    return [*max(found, key=found.get)]


@pytest.fixture
def families(models):
    """A model of each kind that keeps its past in another way."""
    from transformers import MarianConfig, MarianMTModel, T5Config, T5ForConditionalGeneration

    from fun_transformer import Seq2SeqRNNConfig, Seq2SeqRNNForConditionalGeneration

    ids = {"pad_token_id": 0, "eos_token_id": 2, "vocab_size": 20}
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "forced_eos_token_id": None}
    marian = MarianMTModel(MarianConfig(**ids, **sizes, decoder_start_token_id=1))
    t5 = T5ForConditionalGeneration(
        T5Config(**ids, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )
    rnn = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(vocab_size=20, d_model=16))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in [*marian.parameters(), *t5.parameters(), *rnn.parameters()]:
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return {"ours": models[1], "rnn": rnn.eval(), "marian": marian.eval(), "t5": t5.eval()}


@pytest.mark.parametrize("family", ["ours", "rnn", "marian", "t5"])
def test_one_model_with_one_beam_writes_what_generate_writes(family, families):
    model, (ids, mask) = families[family], inputs()
    options = {"num_beams": 1, "max_new_tokens": 9}
    expected = model.generate(ids, attention_mask=mask, do_sample=False, suppress_tokens=[0], **options)
    found = generate_together([model], ids, mask, **options)
    assert found.tolist() == expected[:, 1:].tolist()


@pytest.mark.parametrize("family", ["ours", "rnn", "marian", "t5"])
def test_beams_that_never_end_are_those_of_generate(family, families):
    model, (ids, mask) = families[family], inputs()
    model.config.eos_token_id = model.generation_config.eos_token_id = (
        10_000  # no such token: the plain search is left
    )
    options = {"num_beams": 4, "max_new_tokens": 7, "length_penalty": 0.0}
    expected = model.generate(ids, attention_mask=mask, do_sample=False, suppress_tokens=[0], **options)
    assert generate_together([model], ids, mask, **options).tolist() == expected[:, 1:].tolist()


@torch.no_grad()
def test_a_wide_beam_finds_the_best_sequence_of_the_mean(models):
    ids, mask = inputs()
    vocab = models[0].config.decoder_vocab_size
    found = generate_together(models, ids[:1], mask[:1], num_beams=vocab, max_new_tokens=2, length_penalty=0.0)
    best = enumerate_best(models, ids[0])
    assert found[0, : len(best)].tolist() == best
    alone = [generate_together([model], ids[:1], mask[:1], vocab, 2, 0.0)[0, : len(best)].tolist() for model in models]
    assert alone[0] != alone[1]  # so their mean is no trivial case


def test_a_batch_gives_what_each_source_gives_alone(models):
    ids, mask = inputs()
    together = generate_together(models, ids, mask, num_beams=3, max_new_tokens=8)
    for row, (source, kept) in enumerate(zip(ids, mask)):
        alone = generate_together(models, source[None, kept.bool()], kept[None, kept.bool()], 3, 8)[0].tolist()
        padded = together[row].tolist()
        assert padded[: len(alone)] == alone and not any(padded[len(alone) :])


def test_the_order_of_the_models_does_not_matter(models):
    ids, mask = inputs()
    found = [generate_together(order, ids, mask, num_beams=4, max_new_tokens=8) for order in (models, models[::-1])]
    assert found[0].tolist() == found[1].tolist()


def test_models_of_different_vocabularies_are_refused(models, tiny_model):
    with pytest.raises(ValueError, match="decoder_vocab_size"):
        check_ensemble([models[0], tiny_model("sdpa", vocab_size=models[0].config.vocab_size + 1)])
    with pytest.raises(ValueError, match="at least one"):
        check_ensemble([])
    with pytest.raises(ValueError, match="num_beams=0"):
        generate_together(models, *inputs(), num_beams=0)


@pytest.fixture
def save(models, tmp_path):
    """A function that saves a model with a tokenizer of the given words; its folder."""
    from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

    def write(number, text):
        folder = tmp_path / f"model{number}"
        models[number].save_pretrained(folder)
        settings = TokenizerSettings(type="char", vocab_size=models[number].config.vocab_size)
        train_tokenizer([text], settings=settings).save_pretrained(folder)
        return str(folder)

    return write


def test_distilling_writes_a_row_for_each_different_source(save, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("ab\nba\n\nab\n", encoding="utf-8")
    output = tmp_path / "rows.jsonl"
    words = [save(0, "abc"), save(1, "abc"), "--sources", str(tmp_path / "words.txt"), "--output", str(output)]
    assert main([*words, "--num_beams", "2", "--max_new_tokens", "4"]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["source"] for row in rows) == ["ab", "ba"]
    assert all(set(row) == {"source", "target"} for row in rows)


def test_distilling_refuses_models_of_different_tokenizers(save, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("ab\n", encoding="utf-8")
    words = [save(0, "abc"), save(1, "abd"), "--sources", str(tmp_path / "words.txt")]
    assert main([*words, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert "different vocabularies" in capsys.readouterr().err
    assert not (tmp_path / "rows.jsonl").exists()
    assert main([*words, "--output", str(tmp_path / "nowhere" / "rows.jsonl")]) == 2
    assert "There is no folder" in capsys.readouterr().err
