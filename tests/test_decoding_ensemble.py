import pytest
import torch

from fun_transformer import pipeline_fun_transformer
from fun_transformer.decoding import Ensemble, score_generated


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


def generate_together(models, ids, mask, num_beams=5, max_new_tokens=256, length_penalty=1.0):
    """What models write together, without the start token; padding is never written."""
    options = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, "length_penalty": length_penalty}
    options |= {"attention_mask": mask, "do_sample": False, "suppress_tokens": [0]}
    return Ensemble(models).generate(ids, **options)[:, 1:]


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
def char_tokenizer(models):
    """A tokenizer of letters with fewer tokens than the models know."""
    from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

    return train_tokenizer(["abc"], settings=TokenizerSettings(type="char", vocab_size=models[0].config.vocab_size))


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


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("family", ["ours", "rnn", "marian", "t5"])
def test_one_model_writes_what_it_writes_alone(family, num_beams, families):
    model, (ids, mask) = families[family], inputs()
    options = {"num_beams": num_beams, "max_new_tokens": 9, "length_penalty": 0.7}
    expected = model.generate(ids, attention_mask=mask, do_sample=False, suppress_tokens=[0], **options)
    assert generate_together([model], ids, mask, **options).tolist() == expected[:, 1:].tolist()


@torch.no_grad()
def test_models_of_different_widths_and_families_give_the_mean_of_their_probabilities(families, tiny_model):
    models = [families["marian"], tiny_model(d_model=8, vocab_size=20, decoder_vocab_size=20), families["marian"]]
    (ids, mask), target = inputs(), torch.tensor([[1, 4, 5], [1, 6, 2], [1, 2, 0]])
    alone = [model(input_ids=ids, attention_mask=mask, decoder_input_ids=target).logits for model in models]
    mean = torch.stack([logits.softmax(-1) for logits in alone]).mean(0)
    found = Ensemble(models)(ids, mask, target).logits
    torch.testing.assert_close(found.exp(), mean, rtol=1e-4, atol=1e-6)


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


def test_what_cannot_be_an_ensemble_is_refused(models, tiny_model, families, tmp_path):
    with pytest.raises(ValueError, match="vocabulary sizes"):
        Ensemble([models[0], tiny_model("sdpa", vocab_size=models[0].config.vocab_size + 1)])
    with pytest.raises(ValueError, match=r"Model 2 .* decoder_start_token_id 0, the first has 1"):
        Ensemble([families["marian"], families["t5"]])
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="Save its models one by one"):
        Ensemble(models).save_pretrained(tmp_path)


def test_scores_are_those_of_the_mean_and_attention_is_refused(models, char_tokenizer):
    ids, _ = inputs()
    ensemble = Ensemble(models)
    found = ensemble.generate(ids, num_beams=3, max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
    read = score_generated(ensemble, char_tokenizer, {"input_ids": ids}, found.sequences)
    scores = torch.tensor([one.beam_score() for one in read])
    torch.testing.assert_close(scores, found.sequences_scores, rtol=1e-4, atol=1e-5)
    pipe = pipeline_fun_transformer.TranslationPipeline(ensemble, char_tokenizer)
    assert pipe(["ab", "ba"], num_beams=2, max_new_tokens=4, guard=True)[1].keys() >= {"translation_text", "faults"}
    with pytest.raises(ValueError, match="no cross-attention"):
        pipe("ab", return_attention=True)


@pytest.fixture
def few_positions():
    """A T5, which takes any length, and a Marian of 12 positions, of the same special tokens; neither ever ends."""
    from transformers import MarianConfig, MarianMTModel, T5Config, T5ForConditionalGeneration

    ids = {"pad_token_id": 0, "eos_token_id": 2, "vocab_size": 20, "decoder_start_token_id": 1}
    sizes = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "forced_eos_token_id": None}
    marian = MarianMTModel(MarianConfig(**ids, **sizes, max_position_embeddings=12))
    t5 = T5ForConditionalGeneration(T5Config(**ids, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    for model in (t5, marian):
        model.generation_config.update(suppress_tokens=[0, 2], max_length=None, bos_token_id=None)
    return [t5.eval(), marian.eval()]


@pytest.mark.parametrize("order", [1, -1])
def test_the_smallest_number_of_positions_holds_in_any_order(few_positions, order, char_tokenizer):
    ensemble = Ensemble(few_positions[::order])
    pipe = pipeline_fun_transformer.TranslationPipeline(ensemble, char_tokenizer)
    assert ensemble.position_limit == pipe.max_source_tokens == 12
    assert ensemble.generation_config.max_length in (None, 12)
    for num_beams in (1, 3):
        assert len(pipe("abc", num_beams=num_beams, return_tensors=True)[0]["translation_token_ids"]) == 13
    with pytest.raises(ValueError, match="max_new_tokens=13, but the model has 12 positions"):
        pipe("abc", max_new_tokens=13)


def test_a_model_of_few_positions_writes_no_more_by_itself(few_positions, char_tokenizer):
    pipe = pipeline_fun_transformer.TranslationPipeline(few_positions[1], char_tokenizer)
    assert len(pipe("abc", num_beams=1, return_tensors=True)[0]["translation_token_ids"]) == 13


def test_one_model_is_no_list_of_models(models):
    with pytest.raises(TypeError, match=r"a list of models, got .*: Ensemble\(\[first, second\]\)"):
        Ensemble(models[0])
