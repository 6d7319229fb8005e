"""Batches side by side: threads change neither answers nor settings, and end when the caller does."""

import signal
import threading
from contextlib import contextmanager

import pytest
import torch
from test_pipelines import TEXTS, TINY_MODELS, build
from transformers import GenerationConfig, LogitsProcessorList, MinLengthLogitsProcessor

from fun_transformer.pipeline_workers import answer_side_by_side, count_workers

MANY = [f"{text} {more}" for text in TEXTS for more in ("the", "mat ran on")]
CPU = torch.device("cpu")


@contextmanager
def cores(number):
    """Say that the process has this number of cores; no thread may be left at the end."""
    before, running = torch.get_num_threads(), set(threading.enumerate())
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)
    assert set(threading.enumerate()) <= running


@pytest.fixture(scope="module", params=["marian", "fun_transformer"])
def model(request):
    torch.manual_seed(1)
    return TINY_MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def marian():
    torch.manual_seed(1)
    return TINY_MODELS["marian"]().eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 1},
        {"return_scores": True, "num_return_sequences": 2},
        {"guard": True, "long_text": "sentences"},
        {"glossary": {"dog": "mat", "cat": ""}, "return_alignments": True},
    ],
)
def test_two_workers_answer_as_one(model, options):
    pipe = build(model)
    with cores(1):
        expected = pipe(MANY, batch_size=3, **options)
    with cores(2):
        assert pipe(MANY, batch_size=3, **options) == expected
        streamed = list(pipe((text for text in MANY), batch_size=3, **options))
    texts = [[record["translation_text"] for record in records] for records in streamed]
    in_lists = [records if isinstance(records, list) else [records] for records in expected]
    assert texts == [[record["translation_text"] for record in records] for records in in_lists]


def test_batches_are_computed_in_two_threads_and_no_setting_is_left(marian, monkeypatch):
    generate, seen = marian.generate, set()

    def noting(**kwargs):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return generate(**kwargs)

    monkeypatch.setattr(marian, "generate", noting)
    found = []
    with cores(2):
        build(marian)(MANY, batch_size=2)
        threads = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        threads.start()
        threads.join()
        assert found == [2] and torch.get_num_threads() == 2
    assert {threads for _, threads in seen} == {1} and threading.get_ident() not in {thread for thread, _ in seen}


@pytest.mark.parametrize("options", [{"do_sample": True, "num_beams": 1}, {"mbr": 4}])
def test_samples_do_not_depend_on_the_number_of_cores(marian, options):
    pipe, found = build(marian), []
    for number in (1, 2):
        with cores(number):
            torch.manual_seed(5)
            found.append(pipe(MANY, batch_size=3, **options))
    if options.get("mbr"):  # batches are cut alike
        assert [record["utility"] for record in found[0]] == [record["utility"] for record in found[1]]
    assert found[0] == found[1]


def test_an_error_of_a_batch_comes_through_and_ends_the_others():
    def answer(batch):
        if batch == 2:
            raise ValueError("no memory")
        while batch == 1:  # without end
            torch.zeros(1)
        return batch

    with cores(2), pytest.raises(ValueError, match="no memory"):
        list(answer_side_by_side(answer, [1, 2, 3], 2))


def test_ctrl_c_ends_batches_where_they_are():
    def answer(batch):
        if batch == 0:
            signal.raise_signal(signal.SIGINT)
        while True:
            torch.zeros(1)

    with cores(2), pytest.raises(KeyboardInterrupt):
        list(answer_side_by_side(answer, [0, 1, 2, 3], 2))


def test_a_caller_that_takes_no_more_answers_ends_the_workers():
    with cores(2):
        answers = answer_side_by_side(lambda batch: batch, list(range(100)), 2)
        assert next(answers)[0] in (0, 1)
        answers.close()


def test_what_batches_share_is_computed_one_by_one():
    with cores(3):
        assert count_workers(CPU, {"num_beams": 5, "eos_token_id": [2]}) == 3
        assert count_workers(torch.device("cuda"), {}) == 1
        for options in ({"do_sample": True}, {"cache_implementation": "static"}):
            assert count_workers(CPU, options) == 1
        for value in (LogitsProcessorList([MinLengthLogitsProcessor(3, 2)]), lambda model, **kwargs: None):
            assert count_workers(CPU, {"any": value}) == 1
        with torch.autocast("cpu"):
            assert count_workers(CPU, {}) == 1
    with cores(1):
        assert count_workers(CPU, {}) == 1


def test_a_generation_config_says_what_is_sampled(marian, monkeypatch):
    generate, seen = marian.generate, set()
    monkeypatch.setattr(marian, "generate", lambda **kwargs: seen.add(threading.get_ident()) or generate(**kwargs))
    pipe = build(marian)
    with cores(2):
        pipe(MANY, batch_size=2, generation_config=GenerationConfig(num_beams=2, max_new_tokens=4))
        assert threading.get_ident() not in seen
        pipe(MANY, batch_size=2, generation_config=GenerationConfig(do_sample=True, max_new_tokens=4))
        assert threading.get_ident() in seen


def test_a_stream_is_read_a_bounded_number_of_texts_ahead(marian):
    read = []
    texts = (read.append(i) or "the cat" for i in range(200))
    answers = build(marian, num_beams=1)(texts, batch_size=2)
    for i, _ in enumerate(answers):
        assert len(read) <= i + 1 + 2 * 16
    assert i == 199
