"""The searches over the fast decoder find what transformers' own loops find, in every detail that they return."""

import copy
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, StoppingCriteria, TextStreamer

from fun_transformer.fast_generation import can_be_fast, fast_encoding
from fun_transformer.fast_products import MANY_ROWS, lay_out
from fun_transformer.modeling_fun_transformer import FAST_PARTS

PLAIN = {"cache_implementation": "dynamic"}  # asks for the loops of transformers
VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_position": "pre", "activation_function": "gelu"},
    "learned": {"position_embedding_type": "learned", "decoder_attention_heads": 8, "scale_embedding": False},
    "rotary": {"position_embedding_type": "rotary"},
    "relative": {"position_embedding_type": "relative", "norm_position": "pre"},
    "all apart": {"decoder_vocab_size": 31, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "many tokens": {"vocab_size": 3001, "activation_function": "silu"},
}
SEARCHES = {
    "greedy": {},
    "greedy, no word twice": {"no_repeat_ngram_size": 1, "min_new_tokens": 3},
    "two beams": {"num_beams": 2},
    "five beams": {"num_beams": 5, "num_return_sequences": 5},
    "long": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": "never", "max_new_tokens": 30},
    "short": {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True, "num_return_sequences": 2},
    "never": {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"},
    "one token": {"num_beams": 4, "max_new_tokens": 1},
    "forced": {"num_beams": 4, "forced_bos_token_id": 7, "forced_eos_token_id": 2, "min_new_tokens": 3},
    "processors": {
        "num_beams": 4,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
        "bad_words_ids": [[8], [6, 9]],
    },
    "two ends": {"num_beams": 3, "eos_token_id": [2, 9]},
    "sampling": {"do_sample": True, "num_return_sequences": 3, "top_k": 10, "temperature": 0.7},
    "beam sampling": {"do_sample": True, "num_beams": 3, "num_return_sequences": 2},
}


def lively(model):
    """Random weights repeat one token or stop at once; larger output weights make the searches disagree."""
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model


@pytest.fixture
def sources(tiny_batch):
    """input_ids and attention_mask of three sentences of 7, 1 and 4 tokens, padded on the right."""
    return {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}


def found(model, inputs, **settings):
    """The outputs of a call with everything that it can return."""
    torch.manual_seed(0)
    every = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    inputs = copy.deepcopy(inputs)  # `generate` writes into encoder_outputs
    return model.generate(**inputs, **{"max_new_tokens": 12, "num_beams": 1, **every, **settings})


def assert_same(output, expected, padded=0):
    """Compare all that two calls return; of `padded` tokens, which no token sees, keys and values may differ."""
    assert output.keys() == expected.keys()
    assert torch.equal(output.sequences, expected.sequences)
    for name in ("sequences_scores", "scores", "logits"):
        torch.testing.assert_close(output.get(name), expected.get(name), atol=1e-5, rtol=1e-5)
    if "beam_indices" in expected:
        assert torch.equal(output.beam_indices, expected.beam_indices)
        assert output.beam_indices.dtype == expected.beam_indices.dtype
    for name in ("self_attention_cache", "cross_attention_cache"):
        caches = (getattr(one.past_key_values, name) for one in (output, expected))
        for layer, expected_layer in zip(*(cache.layers for cache in caches), strict=True):
            for tensors in ((layer.keys, expected_layer.keys), (layer.values, expected_layer.values)):
                torch.testing.assert_close(*(tensor[:, :, padded:] for tensor in tensors), atol=1e-4, rtol=1e-4)


def assert_same_searches(model, inputs, **settings):
    """Compare all that a call returns, and the sequences alone, for which finished texts leave the batch."""
    expected = found(model, inputs, **settings, **PLAIN)
    prompt_mask = inputs.get("decoder_attention_mask", torch.ones(1, 1))
    assert_same(found(model, inputs, **settings), expected, padded=int((prompt_mask == 0).sum(dim=1).max()))
    alone = found(model, inputs, **settings, return_dict_in_generate=False)
    assert torch.equal(alone, expected.sequences)
    return expected


class CountOperations(TorchDispatchMode):
    """Counts what torch does."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", SEARCHES)
def test_the_fast_decoder_finds_the_same(kind, variant, tiny_model, sources):
    model = lively(tiny_model(**VARIANTS[variant]))
    assert_same_searches(model, sources, **SEARCHES[kind])


PROMPTS = torch.tensor([[1, 8, 9, 17], [0, 0, 1, 8], [0, 1, 4, 5]])
INPUTS = {
    "left": lambda model, ids, mask: {"input_ids": ids.flip(1), "attention_mask": mask.flip(1)},
    "no mask": lambda model, ids, mask: {"input_ids": ids},
    "one text": lambda model, ids, mask: {"input_ids": ids[:1], "attention_mask": mask[:1]},
    "embeddings": lambda model, ids, mask: {
        "inputs_embeds": model.get_input_embeddings()(ids),
        "attention_mask": mask,
        "decoder_input_ids": torch.full((3, 1), 1),
    },
    "encoded": lambda model, ids, mask: {
        "encoder_outputs": model.get_encoder()(ids, attention_mask=mask),
        "attention_mask": mask,
    },
    "equal prompts": lambda model, ids, mask: {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": torch.tensor([[1, 8, 9], [1, 4, 5], [1, 9, 9]]),
    },
    "padded prompts": lambda model, ids, mask: {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": PROMPTS,
        "decoder_attention_mask": (PROMPTS != 0).long(),
    },
    "nothing but padding": lambda model, ids, mask: {
        "input_ids": ids,
        "attention_mask": mask * torch.tensor([[1], [0], [1]]),
    },
}


@torch.no_grad()
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_all_kinds_give_the_same(kind, attn_implementation, tiny_model, sources):
    model = lively(tiny_model(attn_implementation))
    inputs = INPUTS[kind](model, sources["input_ids"], sources["attention_mask"])
    assert_same_searches(model, inputs, num_beams=3)
    assert_same_searches(model, inputs)


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_a_text_in_a_batch_is_as_it_is_alone(norm_position, num_beams, tiny_model):
    """Texts of many lengths, so that some leave the batch long before others."""
    model = lively(tiny_model(norm_position=norm_position))
    ids = torch.randint(5, 23, (24, 9))
    mask = (torch.arange(9) < torch.randint(1, 10, (24, 1))).long()
    settings = {"num_beams": num_beams, "max_new_tokens": 30, "eos_token_id": [2, 3, 9, 16, 17, 20]}
    settings |= {"early_stopping": True, "length_penalty": -1.0} if num_beams > 1 else {}
    together = model.generate(input_ids=ids, attention_mask=mask, **settings)
    filled = (together == 0) | (together == 2)  # beam search takes no padding token that is 0
    assert len(set(filled.sum(dim=1).tolist())) >= 3
    for row, row_mask, expected in zip(ids, mask, together):
        alone = model.generate(input_ids=row[row_mask.bool()][None], **settings)[0]
        assert torch.equal(alone, expected[: alone.shape[0]])


class EndsWithNine(StoppingCriteria):
    """A rule of a user's own, that sees whole texts."""

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == 9


@pytest.mark.parametrize("num_beams", [1, 3])
def test_rules_of_a_users_own_see_what_they_always_saw(num_beams, tiny_model, sources):
    model, seen = lively(tiny_model()), []

    def only_of_its_text(batch_id, tokens):
        seen.append((batch_id, tokens.tolist()))
        return [2, 9, *range(5 + batch_id, 20)]

    rules = {"prefix_allowed_tokens_fn": only_of_its_text, "stopping_criteria": [EndsWithNine()]}
    expected = found(model, sources, num_beams=num_beams, **rules, **PLAIN)
    seen_by_plain, seen[:] = seen[:], []
    assert_same(found(model, sources, num_beams=num_beams, **rules), expected)
    assert seen == seen_by_plain


def test_a_streamer_gets_each_token_at_once(tiny_model, sources):
    model, pieces = lively(tiny_model()), []

    class Pieces(TextStreamer):
        def __init__(self):
            pass

        def put(self, value):
            pieces.append(value.tolist())

        def end(self):
            pieces.append("end")

    model.generate(**sources, num_beams=1, max_new_tokens=8, streamer=Pieces(), **PLAIN)
    expected, pieces[:] = pieces[:], []
    model.generate(**sources, num_beams=1, max_new_tokens=8, streamer=Pieces())
    assert pieces == expected and pieces[-1] == "end"


@pytest.mark.parametrize("kind", ["greedy", "five beams"])
def test_bfloat16_finds_the_same_scores(kind, tiny_model, sources):
    model = lively(tiny_model()).to(torch.bfloat16)
    output = found(model, sources, **SEARCHES[kind], max_new_tokens=2)
    expected = found(model, sources, **SEARCHES[kind], max_new_tokens=2, **PLAIN)
    torch.testing.assert_close(output.logits[0], expected.logits[0], atol=0.1, rtol=0.02)
    assert output.sequences.shape == expected.sequences.shape


def in_float16_numbers(model):
    """A model as it is loaded from a file of float16."""
    return model.half().float()


@pytest.mark.parametrize("kind", ["greedy", "five beams", "sampling"])
def test_weights_of_float16_numbers_find_the_same(kind, tiny_model, sources):
    assert_same_searches(in_float16_numbers(lively(tiny_model())), sources, **SEARCHES[kind])


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("numbers", ["float16", "float32", "too large for float16"])
def test_a_laid_out_weight_gives_the_products_of_its_layer(numbers, has_bias):
    layer = torch.nn.Linear(40, 60, bias=has_bias).requires_grad_(False)
    if numbers == "float16":
        in_float16_numbers(layer)
    elif numbers == "too large for float16":
        in_float16_numbers(layer).weight[3, 5] = 1e6
    product, exact = lay_out(layer), copy.deepcopy(layer).double()
    for rows in (1, 7, MANY_ROWS, MANY_ROWS + 3):
        states = torch.randn(rows, 40)
        expected = exact(states.double())
        torch.testing.assert_close(product(states).double(), expected, atol=1e-5, rtol=1e-5)


# The encoder

MASKS = {
    "no padding": None,
    "right": [[1, 1, 1, 1], [1, 1, 0, 0]],
    "left": [[1, 1, 1, 1], [0, 0, 1, 1]],
    "nothing but padding": [[0, 0, 0, 0], [1, 1, 1, 0]],
}


def encoded(model, inputs, **settings):
    """What the fast encoder returns, if it can be used."""
    with torch.no_grad():
        return fast_encoding(model, FAST_PARTS, GenerationConfig(**settings), inputs)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fast_encoder_returns_the_same_states(variant, mask, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, **VARIANTS[variant])
    inputs = {"input_ids": torch.randint(5, 23, (2, 4))}
    if MASKS[mask] is not None:
        inputs["attention_mask"] = torch.tensor(MASKS[mask])
    with torch.no_grad():
        expected = model.get_encoder()(**inputs).last_hidden_state
    torch.testing.assert_close(encoded(model, inputs).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_generate_reads_the_source_by_the_fast_encoder(tiny_model, sources):
    model = tiny_model()
    operations(model, sources)  # lays the weights out
    fast, layer = operations(model, sources), model.get_encoder().layers[0]
    layer.forward = layer.forward  # who knows what it computes now?
    assert encoded(model, sources) is None
    assert fast < operations(model, sources)


@pytest.mark.parametrize(
    "settings", [PLAIN, {"output_attentions": True}, {"output_hidden_states": True}], ids=lambda one: next(iter(one))
)
def test_an_encoder_that_has_more_to_return_is_called(settings, tiny_model, sources):
    assert encoded(tiny_model(), sources, **settings) is None


def test_other_inputs_of_an_encoder_are_given_to_it(tiny_model, sources):
    model = tiny_model()
    embeds = model.get_input_embeddings()(sources["input_ids"])
    assert encoded(model, {"inputs_embeds": embeds, "attention_mask": sources["attention_mask"]}) is None
    assert encoded(model, {**sources, "packing": {}}) is None
    assert encoded(model, {**sources, "decoder_input_ids": torch.ones(3, 1), "use_cache": True}) is not None


@pytest.mark.parametrize("layer_type", ["sliding_attention", "linear_attention", "conv"])
def test_other_layers_of_an_encoder_are_called(layer_type, tiny_model, sources):
    fields = {"encoder_layer_types": ["full_attention", layer_type], "encoder_layers": 2, "sliding_window": 2}
    model = tiny_model(**fields)
    assert encoded(model, sources) is None
    assert_same_searches(model, sources, num_beams=2)


# When it is used, and when not


def operations(model, inputs, **settings):
    with CountOperations() as counter:
        model.generate(**inputs, **{"max_new_tokens": 6, "min_new_tokens": 6, **settings})
    return counter.count


@pytest.mark.parametrize("num_beams", [1, 4])
def test_it_needs_far_fewer_operations(num_beams, tiny_model, sources):
    model = tiny_model()
    fast = operations(model, sources, num_beams=num_beams)
    assert fast < 0.85 * operations(model, sources, num_beams=num_beams, **PLAIN)


def hook(model):
    model.get_decoder().layers[1].feed_forward.fc1.register_forward_hook(lambda module, args, output: output + 1)


def other_forward(model):
    forward = model.lm_head.forward
    model.lm_head.forward = lambda states: forward(states).flip(-1)


def other_class(model):
    class Louder(torch.nn.Linear):
        def forward(self, states):
            return 2 * super().forward(states)

    model.get_decoder().layers[0].encoder_attn.out_proj.__class__ = Louder


@pytest.mark.parametrize("num_beams", [1, 3])
def test_gradients_reach_the_weights_where_they_are_computed(num_beams, tiny_model, sources):
    model = lively(tiny_model())
    generate = type(model).generate.__wrapped__  # without no_grad
    options = {"num_beams": num_beams, "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    generate(model, **sources, **options).logits[-1].sum().backward()
    assert model.get_decoder().layers[0].feed_forward.fc1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("change", [hook, other_forward, other_class, torch.nn.Module.train])
def test_a_model_that_computes_something_else_takes_the_plain_way(change, tiny_model, sources):
    model = lively(tiny_model())
    assert can_be_fast(model, FAST_PARTS)
    change(model)
    assert not can_be_fast(model, FAST_PARTS)
    assert torch.equal(
        found(model, sources, num_beams=2).sequences, found(model, sources, num_beams=2, **PLAIN).sequences
    )


@pytest.mark.parametrize("layer_type", ["sliding_attention", "linear_attention", "conv"])
def test_other_layers_take_the_plain_way(layer_type, tiny_model, sources):
    fields = {"decoder_layer_types": ["full_attention", layer_type, "full_attention"], "sliding_window": 2}
    model = tiny_model(**fields)
    assert not can_be_fast(model, FAST_PARTS)
    assert_same_searches(model, sources, num_beams=2)


@pytest.mark.parametrize(
    "settings", [{"output_attentions": True}, {"use_cache": False}, {"output_hidden_states": True}]
)
def test_calls_that_ask_for_more_get_it(settings, tiny_model, sources):
    output = found(tiny_model("eager"), sources, num_beams=2, **settings)
    expected = found(
        tiny_model("eager"), sources, num_beams=2, **settings, **({} if "use_cache" in settings else PLAIN)
    )
    assert output.keys() == expected.keys()
    assert torch.equal(output.sequences, expected.sequences)


def test_a_generation_config_can_switch_it_off_for_good(tiny_model, sources, tmp_path):
    model = tiny_model()
    model.generation_config.cache_implementation = "dynamic"
    plain = operations(model, sources)
    model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).cache_implementation == "dynamic"
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert operations(loaded, sources) == plain
    loaded.generation_config.cache_implementation = None
    assert operations(loaded, sources) < plain


# Weights that change


def retrain(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def load(model):
    model.load_state_dict({name: value.flip(0) for name, value in model.state_dict().items()})


@torch.no_grad()
def swap(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0).clone()


@torch.no_grad()
def write_behind_torch(model):
    """As merging LoRA or averaging weights does; torch counts no change."""
    for parameter in model.parameters():
        parameter.data.mul_(1.5)


def one_row(model):
    model.get_output_embeddings().weight.data[9] = 3.0


def round_off(model):
    model.to(torch.bfloat16).to(torch.float32)


def one_row_of_the_encoder(model):
    model.get_encoder().layers[0].feed_forward.fc1.weight.data[3] *= -5.0


@pytest.mark.parametrize(
    "change", [retrain, load, swap, write_behind_torch, one_row, one_row_of_the_encoder, round_off]
)
def test_no_call_uses_old_weights(change, tiny_model, sources):
    model = lively(tiny_model())
    before = found(model, sources)
    change(model)
    output, expected = found(model, sources), found(model, sources, **PLAIN)
    assert_same(output, expected)
    assert not torch.equal(output.logits[0], before.logits[0])


def test_a_weight_that_is_stored_by_columns_is_watched_too(tiny_model, sources):
    model = lively(tiny_model())
    for linear in (model.get_encoder().layers[0].feed_forward.fc1, model.get_decoder().layers[0].feed_forward.fc1):
        linear.weight.data = linear.weight.data.t().contiguous().t()
    assert_same_searches(model, sources)
    for stack in (model.get_encoder(), model.get_decoder()):
        stack.layers[0].feed_forward.fc1.weight.data[3] *= -5.0
        assert_same_searches(model, sources)


def test_what_is_laid_out_is_no_part_of_the_model(tiny_model, sources):
    model = tiny_model()
    state, attributes = set(model.state_dict()), set(vars(model))
    model.generate(**sources, max_new_tokens=3)
    assert set(model.state_dict()) == state and set(vars(model)) == attributes
    again = copy.deepcopy(model)
    write_behind_torch(again)
    assert_same_searches(again, sources)
    assert_same_searches(model, sources)


def test_threads_share_a_model(tiny_model):
    model = lively(tiny_model())
    batches = [torch.randint(5, 23, (4, 3 + number)) for number in range(4)]
    expected = [model.generate(input_ids=ids, num_beams=3, max_new_tokens=20, **PLAIN) for ids in batches]
    results = {}

    def work(number):
        for _ in range(3):
            results.setdefault(number, []).append(
                model.generate(input_ids=batches[number], num_beams=3, max_new_tokens=20)
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, tokens in enumerate(expected):
        assert all(torch.equal(result, tokens) for result in results[number])
