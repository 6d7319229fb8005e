"""The server: LibreTranslate's routes, batches of many clients, limits, hostile requests, a clean end."""

import argparse
import json
import logging
import threading
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import h11
from fastapi.testclient import TestClient
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from fun_transformer.commands import serve
from fun_transformer.pipeline_fun_transformer import TranslationPipeline
from fun_transformer.serving import ApiKeys, Batcher, Limits, Options, Translator, build_app
from fun_transformer.serving.batching import Parts, QueueFullError
from fun_transformer.serving.languages import detect, find_language, pairs_of, split_argument
from fun_transformer.serving.logs import JsonLines, log
from fun_transformer.serving.markup import read_markup
from fun_transformer.serving.server import patient_for
from fun_transformer.serving.translators import Cores, tidy

KEY = "a-key-of-mine"
SIZES = {"layers": 1, "attention_heads": 2, "ffn_dim": 8}


class Pipe:
    """A pipeline that says in capitals what it is told; `sent` has its batches, `hold` makes it wait."""

    def __init__(self, begins=""):
        self.begins, self.sent, self.options = begins, [], []
        self.hold = threading.Event()
        self.hold.set()

    def tokenizer(self, text, verbose=True):
        return {"input_ids": text.split()}

    def count_workers(self):
        return 1

    def __call__(self, texts, num_return_sequences=1, **options):
        self.sent.append(list(texts))
        self.options.append(options)
        assert self.hold.wait(10)
        for text in texts:
            if text == "too long":
                raise ValueError("A text is too long.")
            if text == "owner":
                raise ValueError('CTranslate2 has no search for it. Answer without engine="ctranslate2".')
            if text == "secret crash":
                raise RuntimeError("secret crash")
        ways = range(num_return_sequences)
        rows = [[{"translation_text": f"{self.begins}{text.upper()}{'!' * way}"} for way in ways] for text in texts]
        return [row[0] for row in rows] if num_return_sequences == 1 else rows


@pytest.fixture
def pipe():
    return Pipe()


@pytest.fixture
def start(pipe):
    """A function from limits and keys to a client of a server that translates zh-en and en-zh."""
    clients = []

    def begin(keys=None, **limits):
        translators = [Translator("one", {("zh", "en"): pipe}), Translator("other", {("en", "zh"): Pipe("zh:")})]
        client = TestClient(build_app(translators, Limits(**limits), keys and ApiKeys(keys)))
        clients.append(client.__enter__())
        return client

    yield begin
    pipe.hold.set()
    for client in clients:
        client.__exit__(None, None, None)


def ask(client, route="/translate", **fields):
    return client.post(route, json={"q": "tea", "source": "zh", "target": "en"} | fields)


# ── LibreTranslate's routes ──


def test_a_string_gets_a_string_and_a_list_a_list_in_order(start):
    client = start()
    assert ask(client).json() == {"translatedText": "TEA"}
    assert ask(client, q=["b", "a b c", " ", ""]).status_code == 200
    assert ask(client, q=["b", "a b c", " "]).json() == {"translatedText": ["B", "A B C", " "]}
    assert ask(client, source="en", target="zh").json() == {"translatedText": "zh:TEA"}
    assert ask(client, source="zh-CN", target="en-US").json() == {"translatedText": "TEA"}
    assert ask(client, target="zh").json() == {"translatedText": "tea"}


def test_alternatives_are_the_next_best(start):
    client = start()
    assert ask(client, alternatives=2).json() == {"translatedText": "TEA", "alternatives": ["TEA!", "TEA!!"]}
    answer = ask(client, q=["a", "b"], alternatives=1).json()
    assert answer == {"translatedText": ["A", "B"], "alternatives": [["A!"], ["B!"]]}


@pytest.mark.parametrize("kind", ["data", "files"])
def test_forms_are_read(start, kind):
    fields = {"q": "我\r\nb", "source": "zh", "target": "en", "alternatives": "1", "format": "text"}
    given = fields if kind == "data" else {name: (None, value) for name, value in fields.items()}
    answer = start().post("/translate", **{kind: given}).json()
    assert answer == {"translatedText": "我\nB", "alternatives": ["我\nB!"]}


def test_html_keeps_its_tags_and_escapes(start, pipe):
    html = '<p title="a>b">tea &amp; <b>mil\u00e9k</b></p>\n<!-- <i>no --><script>x < y</script>1 < 2<br/>'
    answer = ask(start(), q=html, format="html", alternatives=1).json()
    expected = '<p title="a>b">TEA &amp; <b>MIL\u00c9K</b></p>\n<!-- <i>no --><script>x < y</script>1 &lt; 2<br/>'
    assert answer["translatedText"] == expected
    assert answer["alternatives"] == [
        expected.replace("&amp;", "&amp;!").replace("\u00c9K", "\u00c9K!").replace("2<", "2!<")
    ]
    assert sorted(chain.from_iterable(pipe.sent)) == ["1 < 2", "mil\u00e9k", "tea &"]


@pytest.mark.parametrize(
    "html", ["", "<", "a<b", "<b", "<!--", "<script>", '<a b="', "<p><<p>>", "</>", "<pre>a</ PRE>", "&amp;"]
)
def test_pieces_of_html_are_the_html(html):
    assert "".join(piece.written for piece in read_markup(html)) == html


def test_hostile_html_is_read_in_linear_time():
    for sign in ("<", "<!--", "<script>", "<a '", "<pre></pr>", "&"):
        assert "".join(piece.written for piece in read_markup(sign * 20_000)) == sign * 20_000


def test_facts_that_clients_ask_for(start):
    client = start(characters=50, texts=5)
    languages = client.get("/languages").json()
    assert languages[1] == {"code": "zh", "name": "Chinese", "targets": ["en"]}
    settings = client.get("/frontend/settings").json()
    assert settings["charLimit"] == 50 and settings["keyRequired"] is False
    assert settings["language"]["source"] == {"code": "zh", "name": "Chinese"}
    assert client.get("/health").json() == {"status": "ok"}
    page = client.get("/")
    assert "sha256-" in page.headers["content-security-policy"] and "http" not in page.text.replace("</html", "")


def test_languages_are_detected_by_script(start):
    client = start()
    assert ask(client, "/detect", q="我也很喜欢tea").json()[0] == {"language": "zh", "confidence": 62.5}
    answer = ask(client, q=["我", "ok"], source="auto").json()
    assert answer["detectedLanguage"][0] == {"language": "zh", "confidence": 100.0}
    assert ask(client, q="tea", source="auto", target="zh").json()["translatedText"] == "zh:TEA"
    assert detect("これは日本語", ["zh", "ja"])[0] == ("ja", 100.0)
    assert detect("日本", ["zh", "ja"])[0] == ("zh", 100.0)
    assert dict(detect("мир", ["ru", "en", "de"])) == {"ru": 100.0, "de": 0.0, "en": 0.0}
    assert dict(detect("ab", ["en", "de"])) == {"de": 50.0, "en": 50.0}
    assert detect("123", ["en", "de"]) == [("de", 0.0), ("en", 0.0)]
    assert find_language("zh-Hans", ["zh", "en"]) == "zh" and find_language("fr", ["zh", "en"]) is None


def test_more_translations_than_beams_get_as_many_beams():
    pipe = Pipe()
    with TestClient(build_app([Translator("one", {("zh", "en"): pipe}, num_beams=2)])) as client:
        assert len(ask(client, alternatives=3).json()["alternatives"]) == 3
        ask(client, alternatives=1)
    assert pipe.options == [{"num_beams": 4}, {}]


@pytest.mark.parametrize(
    ("text", "answer", "language", "confidence"),
    [
        ("我 ok", "我 OK", "en", 66.7),
        ("hello", "hello", "en", 100.0),
        ("12:30", "12:30", "en", 0.0),
        ("我", "我", "zh", 100.0),
    ],
)
def test_each_text_is_detected_by_itself_and_one_in_the_target_stays(start, text, answer, language, confidence):
    client, found = start(), {"language": language, "confidence": confidence}
    answer = text if language == "en" else answer
    for q in (text, ["好", text]):
        got = ask(client, q=q, source="auto").json()
        assert got["translatedText"] == (answer if q == text else ["好", answer])
        assert got["detectedLanguage"] == (found if q == text else [{"language": "zh", "confidence": 100.0}, found])


def test_a_text_in_no_served_language_is_refused_where_it_is_to_be_detected(start, pipe):
    answer = ask(start(), q=["我", "привет"], source="auto")
    assert answer.status_code == 400 and "Say its language as source" in answer.json()["error"] and pipe.sent == []


def test_what_is_detected_of_html_is_what_it_says(start, pipe):
    got = ask(start(), q='<p class="a long name of a style">茶</p>', source="auto", format="html").json()
    assert got["detectedLanguage"]["language"] == "zh" and pipe.sent == [["茶"]]


def test_our_route_tells_what_it_detected(start):
    asked = {"texts": ["茶", "tea"], "source": "auto", "target": "en"}
    answer = start().post("/v1/translate", json=asked).json()
    assert [one["language"] for one in answer["detections"]] == ["zh", "en"]
    assert (answer["source"], answer["target"], answer["model"]) == ("auto", "en", "one")


# ── our own route ──


def test_our_route_gives_all_that_is_known(start, pipe):
    fields = {"texts": ["a", ""], "source": "zh", "target": "en", "nbest": 2, "glossary": {"a": "b"}, "scores": True}
    answer = start().post("/v1/translate", json=fields).json()
    assert answer["model"] == "one" and [one["translation_text"] for one in answer["translations"]] == ["A", ""]
    assert answer["translations"][0]["nbest"] == [{"translation_text": "A"}, {"translation_text": "A!"}]
    [options] = pipe.options
    assert options["return_scores"] is True and options["glossary"].targets == {"a": ("b",)}


# ── batches ──


class Gate:
    """An `answer` for a batcher that waits until it may."""

    def __init__(self):
        self.batches, self.has_begun, self.may_go = [], threading.Event(), threading.Event()

    def __call__(self, texts, options):
        self.batches.append(texts)
        self.has_begun.set()
        assert self.may_go.wait(10)
        return [[{"translation_text": text.upper()}] for text in texts]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def batcher(gate):
    """A batcher whose thread answers one text, and gets no further before the gate opens."""
    made = Batcher(gate, len, Limits(batch_tokens=12, waiting=10, texts=10))
    made.submit(["first"], Options())
    assert gate.has_begun.wait(10)
    yield made
    gate.may_go.set()
    made.close()


def test_texts_of_many_clients_share_batches_of_like_length(batcher, gate):
    futures = [batcher.submit([text], Options())[0] for text in ("aaa", "bbbbbbbb", "cc", "dddd", "eeeeeee")]
    gate.may_go.set()
    assert [future.result(10)[0]["translation_text"] for future in futures] == [
        "AAA",
        "BBBBBBBB",
        "CC",
        "DDDD",
        "EEEEEEE",
    ]
    assert gate.batches == [["first"], ["aaa", "cc", "dddd"], ["bbbbbbbb"], ["eeeeeee"]]


def test_texts_with_other_wishes_have_batches_of_their_own(batcher, gate):
    futures = [batcher.submit(["a"], Options(asked={"nbest": count}))[0] for count in (1, 2, 1)]
    gate.may_go.set()
    for future in futures:
        future.result(10)
    assert gate.batches == [["first"], ["a", "a"], ["a"]]


def test_a_text_that_nobody_waits_for_is_dropped(batcher, gate):
    gone, kept = (batcher.submit([text], Options())[0] for text in ("gone", "kept"))
    assert gone.cancel()
    gate.may_go.set()
    kept.result(10)
    assert gate.batches == [["first"], ["kept"]] and batcher.waiting == 0


def test_a_full_queue_takes_no_part_of_a_request(batcher, gate):
    batcher.submit(["a"] * 9, Options())
    with pytest.raises(QueueFullError) as refused:
        batcher.submit(["b", "c"], Options())
    assert 1 <= refused.value.seconds <= 60
    last = batcher.submit(["d"], Options())
    gate.may_go.set()
    assert last[0].result(10) == [{"translation_text": "D"}]


def test_threads_share_out_what_waits(start, pipe):
    pipe.count_workers = lambda: 2
    client = start()
    pipe.hold.clear()
    found = []
    asking = threading.Thread(target=lambda: found.append(ask(client, q=["a", "b c", "d e", "f"]).json()))
    asking.start()
    while len(pipe.sent) < 2:
        pass
    pipe.hold.set()
    asking.join()
    assert sorted(map(sorted, pipe.sent)) == [["a", "f"], ["b c", "d e"]]
    assert found == [{"translatedText": ["A", "B C", "D E", "F"]}]


def test_a_text_that_is_alone_has_all_cores():
    before, cores = torch.get_num_threads(), Cores(2, threads=4)
    try:
        with cores.share(1):
            assert torch.get_num_threads() == 4
            with cores.share(1):
                assert torch.get_num_threads() == 2
        with cores.share(3):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_closing_answers_what_waits(batcher, gate):
    futures = batcher.submit(["a"] * 9, Options())
    gate.may_go.set()
    batcher.close()
    assert all(future.done() for future in futures) and not batcher.is_alive


def test_a_text_that_fails_leaves_its_batch_unharmed(start, pipe):
    client = start()
    pipe.hold.clear()
    answers = {}
    texts = ["first", "a", "too long", "b", "secret crash", "c"]
    threads = [
        threading.Thread(target=lambda text=text: answers.update({text: ask(client, q=text)})) for text in texts
    ]
    for thread in threads:
        thread.start()
    pipe.hold.set()
    for thread in threads:
        thread.join()
    assert {text: answers[text].status_code for text in texts} == dict.fromkeys(texts, 200) | {
        "too long": 422,
        "secret crash": 500,
    }
    assert answers["a"].json() == {"translatedText": "A"}
    assert answers["too long"].json() == {"error": "A text is too long."}
    assert "secret" not in answers["secret crash"].text


def test_a_long_request_lets_short_ones_in_between():
    gate = Gate()

    def cut(text, options):
        return Parts(
            text.split(), lambda found: [{"translation_text": " ".join(one[0]["translation_text"] for one in found)}]
        )

    batcher = Batcher(gate, len, Limits(batch_tokens=4), cut=cut)
    long, gone = (batcher.submit([" ".join(word * 20)], Options())[0] for word in ("a", "g"))
    assert gate.has_begun.wait(10)
    short = batcher.submit(["short"], Options())[0]
    short.add_done_callback(lambda future: gone.cancel())
    gate.may_go.set()
    assert (
        short.result(10) == [{"translation_text": "SHORT"}]
        and long.result(10)[0]["translation_text"] == "A " * 19 + "A"
    )
    batcher.close()
    assert gate.batches.index(["short"]) <= 2 and list(chain.from_iterable(gate.batches)).count("g") < 20
    assert batcher.waiting == 0


def test_a_text_without_parts_is_answered_at_once():
    batcher = Batcher(
        Gate(), len, Limits(), cut=lambda text, options: Parts([], lambda found: [{"translation_text": text}])
    )
    assert batcher.submit(["1"], Options())[0].result(10) == [{"translation_text": "1"}] and batcher.waiting == 0
    batcher.close()


def test_parts_become_the_answers_of_the_pipeline():
    torch.manual_seed(1)
    words = ["</s>", "<unk>", "<pad>", "the", "cat", "sat."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SIZES.items()}
    special = {"pad_token_id": 2, "eos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 0}
    model = MarianMTModel(MarianConfig(vocab_size=6, d_model=8, max_position_embeddings=16, **sizes, **special)).eval()
    pipe = TranslationPipeline(
        model, tokenizer, task="translation", long_text="sentences", guard=True, max_new_tokens=5
    )
    texts = ["the cat sat. 12:30. the cat\n\ncat", "1 2", "the " * 40, "  sat. "]
    asked = {"nbest": 2, "scores": True}
    one = Translator("one", {("zh", "en"): pipe})
    batcher = Batcher(one.answer, one.count_tokens, Limits(), cut=one.cut)
    found = [future.result(30) for future in batcher.submit(texts, Options(("zh", "en"), asked))]
    batcher.close()
    expected = [tidy(records) for records in pipe(texts, num_return_sequences=2, return_scores=True)]
    for records, others in zip(found, expected, strict=True):
        assert [one["translation_text"] for one in records] == [one["translation_text"] for one in others]
        assert [one["faults"] for one in records] == [one["faults"] for one in others]
        assert [one["score"] for one in records] == pytest.approx([one["score"] for one in others], abs=1e-4)


# ── limits, keys ──


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"q": "a" * 51}, 400),
        ({"q": ["a" * 30, "b" * 30]}, 400),
        ({"q": ["a"] * 6}, 400),
        ({"q": ""}, 400),
        ({"q": []}, 400),
        ({"q": None}, 400),
        ({"q": 5}, 400),
        ({"q": [1]}, 400),
        ({"q": {"a": 1}}, 400),
        ({"q": "a\0b"}, 400),
        ({"q": ["a\x1b[2J"]}, 400),
        ({"source": "xx"}, 400),
        ({"source": "zh\n"}, 400),
        ({"target": ""}, 400),
        ({"target": "x" * 10_000}, 400),
        ({"format": "pdf"}, 400),
        ({"alternatives": -1}, 400),
        ({"alternatives": 1_000_000}, 400),
        ({"alternatives": "2"}, 400),
        ({"alternatives": True}, 400),
    ],
)
def test_requests_beyond_the_limits_are_refused(start, pipe, fields, status):
    answer = ask(start(characters=50, texts=5), **fields)
    assert answer.status_code == status and set(answer.json()) == {"error"}
    assert pipe.sent == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[" * 50_000,
        b'{"q":' * 5_000,
        b'{"q": "\\ud800", "source": "zh", "target": "en"}',
        b'{"q": "\xff", "source": "zh", "target": "en"}',
        b"\xef\xbb\xbf{}",
        b'{"q": NaN}',
        b'{"q": [' + b"1," * 20_000 + b"1]}",
    ],
)
@pytest.mark.parametrize("route", ["/translate", "/v1/translate", "/detect"])
def test_a_body_that_is_no_request_is_refused(start, pipe, body, route):
    answer = start().post(route, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and len(answer.text) < 300
    assert pipe.sent == []


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"q=%ff&source=zh&target=en", 400),
        ("application/x-www-form-urlencoded", b"q=a&" * 100, 400),
        ("application/x-www-form-urlencoded", b"q=a&q=b&source=zh&target=en", 400),
        ("application/json", b'{"q": "a", "q": "b", "source": "zh", "target": "en"}', 400),
        ("multipart/form-data", b"q=a", 400),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="q"; filename="f"\r\n\r\na\r\n--x--',
            400,
        ),
        ("text/plain", b"q=a", 415),
        ("", b"q=a", 415),
        ("application/json", b"[" * 10_000_000, 413),
    ],
)
def test_a_form_that_is_none_is_refused(start, kind, body, status):
    answer = start().post("/translate", content=body, headers={"content-type": kind})
    assert answer.status_code == status and set(answer.json()) == {"error"}


def test_a_body_without_a_length_is_cut_off(start):
    answer = start(characters=50, texts=5).post(
        "/translate", content=iter([b"[" * 50_000] * 4), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


def test_unknown_fields_are_an_error_in_our_route_alone(start):
    client = start()
    assert ask(client, batch=True).status_code == 200
    wrong = {"texts": ["a"], "source": "zh", "target": "en", "n_best": 2}
    assert client.post("/v1/translate", json=wrong).json() == {"error": "n_best: Extra inputs are not permitted"}
    assert client.get("/translate").status_code == 405 and client.get("/nothing").json() == {"error": "Not Found"}


def test_a_full_queue_says_when_to_come_again(start, pipe):
    client = start(waiting=3, texts=3, seconds=20)
    pipe.hold.clear()
    first = threading.Thread(target=lambda: ask(client, q=["a"]))
    first.start()
    while not pipe.sent:
        pass
    second = threading.Thread(target=lambda: ask(client, q=["b", "c"]))
    second.start()
    while 'waiting_texts{model="one"} 2.0' not in client.get("/metrics").text:
        pass
    refused = ask(client, q=["d", "e"])
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
    pipe.hold.set()
    first.join()
    second.join()


def test_a_request_that_takes_too_long_ends(start, pipe):
    client = start(seconds=0.05)
    pipe.hold.clear()
    assert ask(client).headers["retry-after"] == "1"
    waiting = ask(client, q="never read")
    pipe.hold.set()
    assert waiting.status_code == 504 and ask(client, q="next").status_code == 200
    assert ["never read"] not in pipe.sent


def test_a_server_with_keys_opens_to_them_alone(start):
    client = start(keys=[KEY, "another-key"])
    asked = {"texts": ["a"], "source": "zh", "target": "en"}
    for wrong in ({}, {"api_key": ""}, {"api_key": KEY[:-1]}, {"api_key": KEY + "x"}, {"api_key": "schlüssel"}):
        assert ask(client, **wrong).status_code == 403
    assert ask(client, api_key=KEY).status_code == 200
    assert ask(client, "/detect").status_code == client.get("/metrics").status_code == 403
    assert client.post("/v1/translate", json=asked).status_code == 403
    bearer = {"authorization": f"Bearer {KEY}"}
    assert client.post("/v1/translate", json=asked, headers=bearer).status_code == 200
    assert client.get("/metrics", headers=bearer).status_code == 200
    assert client.get("/frontend/settings").json()["keyRequired"] and client.get("/languages").status_code == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"q": []}, "q: the list is empty and needs a text."), ({"q": "a", "api_key": None}, None)],
)
def test_requests_are_refused_in_plain_words_or_taken(start, fields, words):
    assert ask(start(), **fields).json() == ({"error": words} if words else {"translatedText": "A"})


def test_too_many_terms_and_doubled_terms_are_refused_in_plain_words(start):
    asked = {"texts": ["a"], "source": "zh", "target": "en", "glossary": {str(i): "" for i in range(1001)}}
    assert "1,000 terms" in start().post("/v1/translate", json=asked).json()["error"]
    body = json.dumps(asked | {"glossary": {"b": "c"}}).replace('"b": "c"', '"b": "c", "b": "d"')
    answer = start().post("/v1/translate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "'b' is there twice" in answer.json()["error"]


def test_advice_for_the_owner_is_not_for_clients(start):
    client = start()
    answer = ask(client, q="owner")
    assert answer.status_code == 400 and "engine" not in answer.text and "shorter" in answer.text
    asked = {"texts": ["owner"], "source": "zh", "target": "en", "glossary": {"a": "b"}}
    assert "Leave out: glossary" in client.post("/v1/translate", json=asked).json()["error"]


def test_health_has_a_head_and_a_long_request_closes_its_connection(start):
    client = start(characters=50, texts=5)
    assert client.head("/health").status_code == 200
    answer = client.post("/translate", content=b"[" * 100_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.headers["connection"] == "close"


def test_faults_that_are_left_are_counted(start, pipe, monkeypatch):
    client = start()
    monkeypatch.setattr(Pipe, "__call__", lambda self, texts: [{"translation_text": "", "faults_left": ["short"]}])
    ask(client)
    assert 'fun_transformer_faults_left_total{fault="short"} 1.0' in client.get("/metrics").text


def test_what_is_no_http_is_answered_in_json():
    sent = []
    protocol = SimpleNamespace(
        conn=h11.Connection(h11.SERVER),
        transport=SimpleNamespace(write=sent.append, close=lambda: sent.append(b"closed")),
    )
    patient_for(1).send_400_response(protocol, "Invalid HTTP request received.")
    assert b"application/json" in sent[0] and set(json.loads(sent[1])) == {"error"} and sent[-1] == b"closed"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "65536"], "--port 65536"),
        (["--port", "-1"], "--port -1"),
        (["--max-texts", "5", "--max-waiting", "4"], "--max-texts 5"),
        (["--api-keys", "nothing"], "--api-keys nothing is no file"),
        (["--glossary", "nothing"], "--glossary nothing is no file"),
    ],
)
def test_arguments_that_no_server_can_have_are_refused(arguments, problem):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    with pytest.raises(ValueError, match=problem):
        serve.run(parser.parse_args(["model", *arguments]))


@pytest.mark.parametrize(
    ("text", "problem"), [("", "no API key"), ("# a key\n\n", "no API key"), ("\nshort", "line 2")]
)
def test_a_file_of_keys_without_a_good_key_is_refused(tmp_path, text, problem):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match=problem):
        ApiKeys.load(tmp_path / "keys")
    (tmp_path / "keys").write_text(f"# mine\n{KEY}\n")
    assert ApiKeys.load(tmp_path / "keys").allow(KEY)


# ── what is written about requests ──


def test_requests_are_counted_and_logged_without_their_texts(start, caplog):
    client = start()
    with caplog.at_level(logging.INFO, logger="fun_transformer.serving"):
        name = ask(client, q=["secret crash", "private"]).headers["x-request-id"]
        client.get("/a-secret-path")
        ask(client, q=["b", "c"])
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    done = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in done] == [500, 404, 200] and done[0]["id"] == name
    assert done[2]["pair"] == "zh-en" and done[2]["texts"] == 2 and done[2]["characters"] == 2
    [failed] = [line for line in lines if line["event"] == "translation failed"]
    assert failed["error"] == "RuntimeError" and any("test_serving" in place for place in failed["at"])
    assert not any(word in json.dumps(lines) for word in ("secret", "private"))
    metrics = client.get("/metrics").text
    assert 'fun_transformer_requests_total{route="/translate",status="200"} 1.0' in metrics
    assert 'fun_transformer_texts_total{source="zh",target="en"} 2.0' in metrics
    assert 'route="other",status="404"' in metrics and "fun_transformer_batch_texts_count" in metrics


def test_an_error_without_facts_is_a_line_too(caplog):
    with caplog.at_level(logging.INFO, logger="fun_transformer.serving"):
        log("begun", port=5)
    line = json.loads(JsonLines().format(caplog.records[0]))
    assert line["event"] == "begun" and line["port"] == 5 and line["level"] == "info"


# ── models and their languages ──


def test_two_models_for_one_pair_are_refused():
    pipe = Pipe()
    twice = [Translator("one", {("zh", "en"): pipe}), Translator("other", {("zh", "en"): pipe})]
    with pytest.raises(ValueError, match="one and other both translate zh-en"):
        build_app(twice)
    with pytest.raises(ValueError, match="no model"):
        build_app([])


def test_the_languages_of_a_model_are_found(tmp_path):
    tokenizer = SimpleNamespace()
    assert pairs_of("me/opus-mt-zh-en", SimpleNamespace(source_lang="zho", target_lang="eng")) == [("zh", "en")]
    assert pairs_of("Helsinki-NLP/opus-mt-zh-en", tokenizer) == [("zh", "en")]
    (tmp_path / "a-to-b-model").mkdir()
    with pytest.raises(ValueError, match=r"a-to-b-model=zh-en"):
        pairs_of(str(tmp_path / "a-to-b-model"), tokenizer)
    for recipe in (
        "data: {train: [{dataset: x}], test: {source_column: translation.en, target_column: translation.zh}}",
        "data: {train: {source: data/train.en, target: data/train.zh.gz}}",
    ):
        (tmp_path / "recipe.yaml").write_text(recipe)
        assert pairs_of(str(tmp_path / "a-to-b-model"), tokenizer) == [("en", "zh")]
    (tmp_path / "recipe.yaml").write_text("- nothing")
    with pytest.raises(ValueError, match="does not say which languages"):
        pairs_of(str(tmp_path / "a-to-b-model"), tokenizer)


def test_the_command_line_says_languages():
    assert split_argument("runs/a=zh-en") == ("runs/a", [("zh", "en")])
    assert split_argument("a=zh-en,zho_Hans-eng_Latn") == ("a", [("zh", "en"), ("zho_Hans", "eng_Latn")])
    assert split_argument("runs/a") == ("runs/a", [])
    for wrong in ("a=", "a=zh", "a=zh-en,", "=zh-en"):
        with pytest.raises(ValueError, match="MODEL=zh-en"):
            split_argument(wrong)


@pytest.mark.parametrize("limits", [{"characters": 0}, {"seconds": -1}, {"texts": 5, "waiting": 4}])
def test_limits_that_let_nothing_through_are_refused(limits):
    with pytest.raises(ValueError, match=r"limit|wait"):
        Limits(**limits)


def test_a_model_keeps_a_short_name(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    assert serve.short_name(str(tmp_path / "mine" / "model")) == "mine/model"
    assert serve.short_name(str(tmp_path / "mine")) == "mine"
    assert serve.short_name("me/my-model") == "me/my-model"
