"""What every test gets: no network, one thread, a fixed seed; and the tiny configuration that most of them use."""

import gc
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: it is read once
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
import transformers

TINY = {
    "vocab_size": 23,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 32,
}

# Three pairs of a source and its labels, of different lengths; a word occurs twice, one source has a single token.
PAIRS = [
    ([5, 9, 5, 13, 22, 7, 2], [8, 8, 17, 2]),
    ([2], [20, 6, 11, 19, 10, 2]),
    ([14, 6, 21, 2], [12, 2]),
]


def pytest_configure(config):
    torch.set_num_threads(1)


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()  # 700,000 objects of libraries that no later collection, as at the end of a training, looks through


@pytest.fixture(autouse=True)
def fixed_seed():
    transformers.set_seed(0)


@pytest.fixture(autouse=True)
def forget_compiled_code():
    """The compiler counts how often it compiles a function; the tests of one process would use the limit up."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture
def tiny_config():
    """A function from config fields to a tiny FunTransformerConfig; every size in it is a different number.

    Depths, heads and widths of the encoder and decoder differ so that mixing them up is an error.
    """
    from fun_transformer import FunTransformerConfig

    return lambda **fields: FunTransformerConfig(**{**TINY, **fields})


@pytest.fixture
def shake_vectors():
    """A function that gives biases and norms random values: fresh ones are zeros and ones, and an ignored bias would
    not be seen."""

    @torch.no_grad()
    def shake(model):
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        return model

    return shake


@pytest.fixture
def assert_learns_to_reverse():
    """A function that trains a model on six words and their end, reversed: order is all there is to learn."""

    def train(model):
        words, end = torch.randint(5, 23, (32, 6)), torch.full((32, 1), model.config.eos_token_id)
        batch = {"input_ids": torch.cat([words, end], dim=1), "labels": torch.cat([words.flip(1), end], dim=1)}
        optimizer = torch.optim.Adam(model.train().parameters(), lr=5e-3)
        for _ in range(200):
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.05
        generated = model.eval().generate(input_ids=batch["input_ids"], max_new_tokens=7, num_beams=1)
        assert torch.equal(generated[:, 1:], batch["labels"])

    return train


@pytest.fixture
def tiny_model(tiny_config, shake_vectors):
    """A function from config fields (and attn_implementation) to a tiny translation model in eval mode."""
    from fun_transformer import FunTransformerForConditionalGeneration

    def build(attn_implementation="sdpa", **fields):
        torch.manual_seed(0)
        model = FunTransformerForConditionalGeneration(tiny_config(**fields))
        model.set_attn_implementation(attn_implementation)
        return shake_vectors(model).eval()

    return build


@pytest.fixture
def sentence_pairs():
    """List of (source_ids, labels), both ending in `</s>`."""
    return PAIRS


@pytest.fixture
def tiny_batch():
    """The sentence pairs as tensors padded on the right: input_ids, attention_mask and labels, (batch, longest)."""

    def padded(rows, value):
        rows = [torch.tensor(row) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    return {
        "input_ids": padded([source for source, _ in PAIRS], 0),
        "attention_mask": padded([[1] * len(source) for source, _ in PAIRS], 0),
        "labels": padded([labels for _, labels in PAIRS], -100),
    }


@pytest.fixture
def fresh_accelerate():
    """No run was in this process before, and none is after: accelerate keeps its state as long as a process lives."""
    from accelerate.state import AcceleratorState

    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def children():
    """Runs trainings and programs in forked processes (tests/forked_runs.py)."""
    from forked_runs import Children

    runner = Children()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def strangers():
    """Runs programs in forked processes that have not imported our package, transformers or huggingface_hub."""
    from forked_runs import Children

    runner = Children(strangers=True)
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def tiny_live_site(tmp_path_factory):
    """The folder of the live page with tiny models, for all tests that look at it."""
    pytest.importorskip("onnxscript")
    from live_site import make_tiny_site

    return make_tiny_site(tmp_path_factory.mktemp("live"))
