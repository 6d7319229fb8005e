"""generate(): the cache, beams, sampling, padding and long sentences, each against the slow way or another route."""

import pytest
import torch
import transformers
from torch import nn

VARIANTS = pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_position": "pre"},
        {"position_embedding_type": "learned"},
        {"decoder_vocab_size": 31, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    ],
    ids=["paper", "pre-norm", "learned", "all apart"],
)
BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
SEARCHES = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4},
    "three of four beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.6},
    "sampling": {"do_sample": True, "num_beams": 1, "top_k": 10},
    "beam sampling": {"do_sample": True, "num_beams": 3},
}


@pytest.fixture
def sources(tiny_batch):
    """input_ids and attention_mask of three sentences of 7, 1 and 4 tokens, padded on the right."""
    return {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}


def search(model, inputs, **settings):
    """What generate() finds, without the padding after `</s>`, and the scores of the beams or tokens."""
    config, beams = model.config, settings.get("num_beams", 1)
    if beams > 1 and config.decoder_vocab_size != config.vocab_size and transformers.__version__ < "5.18":
        pytest.skip("beam search of transformers 5.17 takes the source's vocabulary for the target's")
    torch.manual_seed(0)
    output = model.generate(
        **inputs, **{"max_new_tokens": 10, **settings}, return_dict_in_generate=True, output_scores=True
    )
    sequences = [[token for token in row if token != model.config.pad_token_id] for row in output.sequences.tolist()]
    scores = output.sequences_scores if settings.get("num_beams", 1) > 1 else torch.stack(output.scores)
    return sequences, scores


def likely_to_go_on(model):
    """Random weights repeat one token or stop at once; larger output weights make the searches disagree."""
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model


# The cache


@BOTH_KERNELS
@VARIANTS
@pytest.mark.parametrize("steps", [[1] * 6, [3, 1, 2], [4, 2]], ids=str)
def test_cached_logits_equal_uncached_ones(steps, fields, attn_implementation, tiny_model, sources):
    model = tiny_model(attn_implementation, **fields)
    target = torch.randint(5, 23, (3, 6))
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, use_cache=False).logits
        encoder_outputs = model.get_encoder()(**sources)
        cache, logits = None, []
        for part in target.split(steps, dim=1):
            output = model(
                encoder_outputs=encoder_outputs,
                attention_mask=sources["attention_mask"],
                decoder_input_ids=part,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_cached_logits_of_left_padded_targets_equal_uncached_ones(tiny_model, sources):
    model = tiny_model()
    target = torch.randint(5, 23, (3, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, decoder_attention_mask=mask, use_cache=False).logits
        cache = None
        for stop in range(3, 7):
            part = target[:, :3] if cache is None else target[:, stop - 1 : stop]
            output = model(
                **sources, decoder_input_ids=part, decoder_attention_mask=mask[:, :stop], past_key_values=cache
            )
            cache = output.past_key_values
            torch.testing.assert_close(output.logits[:, -1], expected[:, stop - 1], atol=1e-5, rtol=1e-5)


@VARIANTS
@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_with_and_without_a_cache_agree(kind, fields, tiny_model, sources):
    model = likely_to_go_on(tiny_model(**fields))
    expected, expected_scores = search(model, sources, **SEARCHES[kind], use_cache=False)
    found, scores = search(model, sources, **SEARCHES[kind], use_cache=True)
    assert found == expected
    torch.testing.assert_close(scores, expected_scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sampling"])
def test_the_static_cache_finds_the_same(kind, tiny_model, sources):
    model = likely_to_go_on(tiny_model())
    expected, _ = search(model, sources, **SEARCHES[kind])
    found, _ = search(model, sources, **SEARCHES[kind], cache_implementation="static", disable_compile=True)
    assert found == expected


def test_generate_reads_the_source_once_and_one_target_token_a_step(tiny_model, sources):
    model = tiny_model()
    sources_read, targets_read = [], []
    model.get_encoder().register_forward_hook(lambda *_: sources_read.append(1))
    model.get_decoder().layers[0].register_forward_hook(lambda _, __, output: targets_read.append(output.shape[1]))
    model.generate(**sources, max_new_tokens=5, min_new_tokens=5, num_beams=2)
    assert len(sources_read) == 1
    assert targets_read == [1] * 5


# Searches


def test_the_searches_differ_and_do_not_stop_at_once(tiny_model, sources):
    """Otherwise the other tests of this file would compare nothing."""
    model = likely_to_go_on(tiny_model())
    found = {kind: search(model, sources, **SEARCHES[kind])[0] for kind in ("greedy", "beam", "sampling")}
    assert found["greedy"] != found["beam"] != found["sampling"] != found["greedy"]
    assert all(max(map(len, sequences)) > 5 for sequences in found.values())


def test_sampling_depends_on_the_seed_alone(tiny_model, sources):
    model = likely_to_go_on(tiny_model())

    def sample(seed):
        torch.manual_seed(seed)
        return model.generate(**sources, do_sample=True, num_beams=1, max_new_tokens=8).tolist()

    assert sample(1) == sample(1) != sample(2)


def test_greedy_search_takes_the_likeliest_token_of_the_full_model(tiny_model, sources):
    model = likely_to_go_on(tiny_model())
    sequences = model.generate(**sources, max_new_tokens=8, min_new_tokens=8, num_beams=1)
    with torch.no_grad():
        logits = model(**sources, decoder_input_ids=sequences[:, :-1]).logits
    logits[..., model.config.eos_token_id] = -torch.inf
    assert torch.equal(sequences[:, 1:], logits.argmax(dim=-1))


def test_a_beams_score_is_its_log_probability(tiny_model, sources):
    model = likely_to_go_on(tiny_model())
    output = model.generate(
        **sources, num_beams=3, max_new_tokens=6, length_penalty=0.0, return_dict_in_generate=True, output_scores=True
    )
    sequences = output.sequences
    with torch.no_grad():
        log_probabilities = model(**sources, decoder_input_ids=sequences[:, :-1]).logits.log_softmax(dim=-1)
    chosen = log_probabilities.gather(-1, sequences[:, 1:, None])[..., 0]
    expected = chosen.masked_fill(sequences[:, 1:] == model.config.pad_token_id, 0).sum(dim=-1)
    torch.testing.assert_close(output.sequences_scores, expected, atol=1e-4, rtol=1e-4)


# Padding and length


@VARIANTS
@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_padding_on_either_side_finds_the_same(kind, fields, tiny_model, sources, sentence_pairs):
    model = likely_to_go_on(tiny_model(**fields))
    expected = []
    for source, _ in sentence_pairs:
        expected += search(model, {"input_ids": torch.tensor([source])}, **SEARCHES[kind])[0]
    assert search(model, sources, **SEARCHES[kind])[0] == expected
    length = sources["input_ids"].shape[1]
    left = {
        "input_ids": torch.stack(
            [nn.functional.pad(torch.tensor(source), (length - len(source), 0)) for source, _ in sentence_pairs]
        ),
        "attention_mask": sources["attention_mask"].flip(1),
    }
    assert search(model, left, **SEARCHES[kind])[0] == expected


@pytest.mark.parametrize("cache_implementation", ["dynamic", "static"])
def test_prompts_of_different_lengths_go_on_as_they_do_alone(cache_implementation, tiny_model):
    """Prompts of the decoder are padded on the left; a static cache reads their positions from no 2-D mask."""
    model = likely_to_go_on(tiny_model())
    source = torch.randint(5, 23, (1, 5))
    prompts = [[1, 8, 9, 17], [1, 8]]
    expected = [search(model, {"input_ids": source}, decoder_input_ids=torch.tensor([row]))[0][0] for row in prompts]
    batch = {
        "input_ids": source.expand(2, 5),
        "decoder_input_ids": torch.tensor([[1, 8, 9, 17], [0, 0, 1, 8]]),
        "decoder_attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
    }
    found, _ = search(model, batch, cache_implementation=cache_implementation, disable_compile=True)
    assert found == expected


def test_sinusoids_generate_beyond_max_position_embeddings(tiny_model):
    model = likely_to_go_on(tiny_model())
    inputs = {"input_ids": torch.randint(5, 23, (2, 45))}  # max_position_embeddings is 32
    settings = {"max_new_tokens": 40, "min_new_tokens": 40, "num_beams": 2}
    expected, _ = search(model, inputs, **settings, use_cache=False)
    assert search(model, inputs, **settings)[0] == expected
    assert len(expected[0]) == 41


def test_learned_positions_refuse_to_generate_beyond_max_position_embeddings(tiny_model, sources):
    model = tiny_model(position_embedding_type="learned")
    assert len(search(model, sources, max_new_tokens=31, min_new_tokens=31)[0][0]) == 32
    with pytest.raises(ValueError, match="max_position_embeddings"):
        model.generate(**sources, max_new_tokens=40, min_new_tokens=40)


def test_a_fully_padded_source_generates_something(tiny_model, sources):
    model = tiny_model()
    sources["attention_mask"][1] = 0
    expected = search(model, {name: tensor[[0, 2]] for name, tensor in sources.items()}, num_beams=3)[0]
    found = search(model, sources, num_beams=3)[0]
    assert [found[0], found[2]] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_generates(dtype, tiny_model, sources):
    model = tiny_model().to(dtype)
    _, scores = search(model, sources, num_beams=3)
    assert scores.isfinite().all()
