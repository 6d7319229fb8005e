"""Word alignments: against attention and gradients computed here, and on tokenizers of all kinds."""

import pytest
import torch
from tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from fun_transformer.decoding.alignment import Aligner, Heads, choose_heads, links_of
from fun_transformer.decoding.links import alignment_error_rate, mutual_information, parse_links
from fun_transformer.decoding.words import decoded_spans, split_words, token_spans, word_shares, word_spans

SOURCES = ["a b c d e f", "g", "p o n b", "h h i"]
TARGETS = ["b d", "c a f e g", "a", "p p p o"]


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


def expected_links(weights):
    """The argmax of each row of (target words, source words), after each column was divided by the root of its sum."""
    weights = weights / weights.sum(0).sqrt()
    return sorted((source, target) for target, source in enumerate(weights.argmax(-1).tolist()))


@pytest.mark.parametrize("heads", [Heads(0), Heads(1, 1), Heads(0, 1, "reading")])
@pytest.mark.parametrize("family", ["marian", "bart", "m2m100", "t5", "fun_transformer", "linear"])
def test_links_follow_the_attention_of_the_chosen_heads(family, heads):
    model, tokenizer = tiny_model(family), word_tokenizer()
    aligned = Aligner(model, tokenizer, heads).align(SOURCES, TARGETS)
    model.set_attn_implementation("eager")
    for source, target, found in zip(SOURCES, TARGETS, aligned):
        labels = tokenizer(text_target=target, return_tensors="pt").input_ids
        inputs = tokenizer(source, return_tensors="pt")
        start = torch.tensor([[model.config.decoder_start_token_id]])
        read = torch.cat([start, labels[:, :-1]], dim=1)
        with torch.no_grad():
            outputs = model(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                decoder_input_ids=read,
                output_attentions=True,
            )
        layer = outputs.cross_attentions[heads.layer][0]
        weights = layer.mean(0) if heads.head is None else layer[heads.head]
        later = heads.step == "reading"
        words = target.split()
        weights = weights[later : len(words) + later, : len(source.split())]  # </s> is no word
        assert found.links == expected_links(weights)
        assert (found.source_words, found.target_words) == (source.split(), words)


def test_models_without_weights_are_aligned_by_gradient_times_input(model):
    tokenizer = word_tokenizer()
    [found] = Aligner(model, tokenizer, Heads(None)).align(["a b c"], ["d e"])
    embedding = (
        model.get_encoder().get_input_embeddings()
        if hasattr(model.get_encoder(), "get_input_embeddings")
        else model.get_input_embeddings()
    )
    inputs = tokenizer("a b c", return_tensors="pt")
    vectors = embedding(inputs.input_ids).detach()
    read = torch.tensor([[model.config.decoder_start_token_id, 7]])
    rows = []
    for t, token in enumerate((7, 8)):
        scale = torch.ones_like(vectors, requires_grad=True)  # dz / dscale = x * dz / dx
        handle = embedding.register_forward_hook(
            lambda module, args, output, scale=scale: vectors * scale if args[0].shape[1] == 4 else output
        )
        outputs = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, decoder_input_ids=read, use_cache=False
        )
        handle.remove()
        outputs.logits[0, t, token].backward()
        rows.append(scale.grad[0].abs().sum(-1))
    weights = torch.stack(rows)
    weights = (weights / weights.sum(-1, keepdim=True))[:, :3]
    assert found.links == expected_links(weights)


def test_a_batch_gives_what_each_pair_gives_alone(model):
    aligner = Aligner(model, word_tokenizer())
    together = aligner.align(SOURCES, TARGETS)
    assert together == [aligner.align([source], [target])[0] for source, target in zip(SOURCES, TARGETS)]


def test_what_was_generated_is_aligned_like_the_same_text_given(model):
    tokenizer = word_tokenizer()
    inputs = tokenizer(SOURCES, return_tensors="pt", padding=True)
    output_ids = model.generate(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, num_beams=3, num_return_sequences=2,
        max_new_tokens=6, suppress_tokens=[0, 1, 3], forced_eos_token_id=None,
    )  # fmt: skip
    aligner = Aligner(model, tokenizer)
    found = aligner.align_generated(SOURCES, inputs, output_ids)
    targets = tokenizer.batch_decode(output_ids, skip_special_tokens=True)
    assert len(found) == len(targets) == 8 and any(targets)
    repeated = [source for source in SOURCES for _ in range(2)]
    given = aligner.align(repeated, targets)
    same = [a.links == b.links for a, b in zip(found, given)]
    assert all(same)


def test_the_model_is_left_as_it_was():
    model = tiny_model("bart").train()
    kernel = model.config._attn_implementation
    Aligner(model, word_tokenizer(), Heads(None)).align(SOURCES, TARGETS)
    assert model.training and model.config._attn_implementation == kernel
    assert all(parameter.grad is None for parameter in model.parameters())


# -- words and tokens


def trained_tokenizer(kind):
    """A tokenizer of one of the kinds that families have, with few merges, so that words are cut."""
    texts = ["Tom ate two apples yesterday", "汤姆昨天吃了两个苹果", "naïve café, Tom."] * 3
    special = ["<pad>", "</s>", "<unk>"]
    if kind == "byte-level":  # BART
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "unigram":  # T5, Marian
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>")
    else:  # BERT, uncased
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=special)
    backend.train_from_iterator(texts, trainer)
    end = [("</s>", backend.token_to_id("</s>"))]
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=end)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("text", ["Tom ate two apples.", "汤姆昨天吃苹果", "naïve café, Tom"])
@pytest.mark.parametrize("kind", ["byte-level", "unigram", "wordpiece"])
def test_tokens_lie_where_the_tokenizers_own_offsets_say(kind, text):
    tokenizer = trained_tokenizer(kind)
    encoded = tokenizer(text, return_offsets_mapping=True)
    words = word_spans(text, split_words(text))
    expected = word_shares(encoded["offset_mapping"], words, text)
    assert token_spans(tokenizer, encoded["input_ids"], text) == encoded["offset_mapping"]
    found = word_shares(decoded_spans(tokenizer, encoded["input_ids"], text), words, text)
    assert not (found > 0)[expected == 0].any()
    assert torch.equal(found.sum(-1) > 0, expected.sum(-1) > 0)  # a token that ends a hanzi and begins another has one
    if kind != "byte-level":
        torch.testing.assert_close(found, expected)


def test_tokens_of_bytes_lie_in_their_word():
    tokenizer, text = ByT5Tokenizer(), "né 你好"
    spans = token_spans(tokenizer, tokenizer(text).input_ids, text)
    shares = word_shares(spans, word_spans(text, split_words(text)), text)
    assert shares.argmax(-1)[:3].tolist() == [0, 0, 0]  # n, and the two bytes of é
    assert shares.argmax(-1)[4:10].tolist() == [1, 1, 1, 2, 2, 2]
    assert shares[3].sum() == 0 and shares[-1].sum() == 0  # the space, </s>


def test_an_unknown_token_lies_between_its_neighbours():
    tokenizer = word_tokenizer()
    text = "a zebra b quagga"
    spans = token_spans(tokenizer, tokenizer(text).input_ids, text)
    shares = word_shares(spans, word_spans(text, text.split()), text)
    assert torch.equal(shares[:4] > 0, torch.eye(4, dtype=torch.bool))


def test_a_prefix_lies_in_no_word():
    tokenizer = word_tokenizer()
    spans = token_spans(tokenizer, tokenizer("o p a b").input_ids, "a b")
    assert spans == [(0, 0), (0, 0), (0, 1), (2, 3), (0, 0)]


def test_words_are_runs_of_letters_and_single_hanzi():
    text = "Tom's 3.5 apples (well-known), 很好！ ｢あい｣"
    words = ["Tom's", "3.5", "apples", "(", "well-known", ")", ",", "很", "好", "！", "｢", "あ", "い", "｣"]
    assert split_words(text) == words
    assert [text[start:end] for start, end in word_spans(text, words)] == words
    with pytest.raises(ValueError, match="The word 'pears' is not in ' apples'"):
        word_spans("Tom's apples", ["Tom's", "pears"])


# -- links


def test_the_error_rate_is_that_of_och_and_ney():
    gold = [parse_links("0-0 1-1 2?1"), parse_links("0-1 1p0")]
    assert gold[0].sure == {(0, 0), (1, 1)} and gold[0].possible == {(0, 0), (1, 1), (2, 1)}
    found = [[(0, 0), (2, 1), (2, 2)], [(0, 1)]]
    # A & S: 1 + 1; A & P: 2 + 1; A: 3 + 1; S: 2 + 1
    assert alignment_error_rate(found, gold) == pytest.approx(1 - 5 / 7)
    assert alignment_error_rate([sorted(one.sure) for one in gold], gold) == 0
    with pytest.raises(ValueError, match="1 alignments and 2 of gold"):
        alignment_error_rate(found[:1], gold)
    with pytest.raises(ValueError, match="'0:1' is no link"):
        parse_links("0-0 0:1")


def test_words_of_equal_weight_are_all_linked_and_weights_of_nothing_link_nothing():
    assert links_of(torch.tensor([[0.4, 0.4, 0.2], [0.0, 0.0, 0.0]])) == [(0, 0), (1, 0)]
    assert links_of(torch.zeros(0, 3)) == links_of(torch.zeros(3, 0)) == []


def test_a_word_that_everything_looks_at_weighs_less():
    weights = torch.tensor([[0.45, 0.55], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    assert links_of(weights)[0] == (0, 0)


def test_right_links_tell_more_than_wrong_ones():
    right = [("猫", "cat"), ("狗", "dog")] * 4
    wrong = [("猫", "cat"), ("猫", "dog"), ("狗", "cat"), ("狗", "dog")] * 2
    assert mutual_information(right) > mutual_information(wrong)
    assert mutual_information([("猫", "cat"), ("狗", "dog")]) == 0 == mutual_information([])


def test_heads_are_chosen_by_gold_or_by_what_links_tell():
    model, tokenizer = tiny_model("fun_transformer"), word_tokenizer()
    aligner = Aligner(model, tokenizer)
    best = Heads(1, 0, "reading")
    links = [one.links for one in Aligner(model, tokenizer, best).align(SOURCES, TARGETS)]
    gold = [parse_links(" ".join(f"{s}-{t}" for s, t in one)) for one in links]
    chosen = choose_heads(aligner, SOURCES, TARGETS, gold)
    found = [one.links for one in Aligner(model, tokenizer, chosen).align(SOURCES, TARGETS)]
    assert alignment_error_rate(found, gold) == 0
    assert choose_heads(aligner, SOURCES, TARGETS).layer in (0, 1)
    assert choose_heads(Aligner(tiny_model("rnn_fixed"), tokenizer), SOURCES, TARGETS) == Heads(None)


def test_wrong_input_is_refused():
    tokenizer = word_tokenizer()
    for heads, message in (
        (Heads(2), "layer=2 does not exist: the model has layers 0 to 1"),
        (Heads(0, 5), "head=5 does not exist"),
        (Heads(0, 0, "later"), "step='later' is unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            Aligner(tiny_model("marian"), tokenizer, heads).align(["a"], ["b"])
    with pytest.raises(ValueError, match="returns no attention weights"):
        Aligner(tiny_model("rnn_fixed"), tokenizer, Heads(0)).align(["a"], ["b"])
    with pytest.raises(ValueError, match="1 sources and 2 targets"):
        Aligner(tiny_model("marian"), tokenizer).align(["a"], ["b", "c"])
