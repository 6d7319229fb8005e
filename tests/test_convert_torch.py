"""State dicts of torch.nn.Transformer become models of ours with torch's own logits."""

import math
import re

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from fun_transformer import FunTransformerForConditionalGeneration, cli
from fun_transformer.conversion import Options, convert

WORDS = {
    "zh": ["<unk>", "<pad>", "<bos>", "<eos>", "我", "吃", "苹果", "了", "狗", "猫", "看"],
    "en": ["<unk>", "<pad>", "<bos>", "<eos>", "i", "ate", "apples", "the", "dog", "cat", "saw", "."],
}
WIDTH, HEADS, LENGTH = 16, 4, 40


class Positions(nn.Module):
    """The table of the tutorials."""

    def __init__(self):
        super().__init__()
        rates = torch.exp(-torch.arange(0, WIDTH, 2) * math.log(10000) / WIDTH)
        angles = torch.arange(LENGTH).reshape(LENGTH, 1) * rates
        table = torch.zeros(LENGTH, WIDTH)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
        self.register_buffer("pos_embedding", table.unsqueeze(-2))

    def forward(self, states):
        return states + self.pos_embedding[: states.size(0)]


class TokenEmbedding(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size, WIDTH)

    def forward(self, tokens):
        return self.embedding(tokens) * math.sqrt(WIDTH)


class Tutorial(nn.Module):
    """A translator as tutorials write it: sequence first, and an output layer with a bias."""

    def __init__(self, **options):
        super().__init__()
        sizes = {"nhead": HEADS, "num_encoder_layers": 2, "num_decoder_layers": 3, "dim_feedforward": 24}
        self.transformer = nn.Transformer(WIDTH, **sizes, dropout=0.1, **options)
        self.generator = nn.Linear(WIDTH, len(WORDS["en"]))
        self.src_tok_emb = TokenEmbedding(len(WORDS["zh"]))
        self.tgt_tok_emb = TokenEmbedding(len(WORDS["en"]))
        self.positional_encoding = Positions()

    def forward(self, source_ids, target_ids):
        """(batch, source_len), (batch, target_len) -> (batch, target_len, vocab_size)."""
        source, target = (ids.transpose(0, 1) for ids in (source_ids, target_ids))
        states = self.transformer(
            self.positional_encoding(self.src_tok_emb(source)),
            self.positional_encoding(self.tgt_tok_emb(target)),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(len(target)),
        )
        return self.generator(states).transpose(0, 1)


@pytest.fixture
def save(tmp_path, shake_vectors):
    """A function that saves a model's weights and the two vocabularies, and returns the file and the options."""

    def save(model, names=lambda name: name, **settings):
        shake_vectors(model).eval()
        torch.save({names(name): value for name, value in model.state_dict().items()}, tmp_path / "model.pt")
        files = [tmp_path / f"vocab.{lang}" for lang in WORDS]
        for file, words in zip(files, WORDS.values()):
            file.write_text("\n".join(words) + "\n", encoding="utf-8")
        settings = {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, **settings}
        return tmp_path / "model.pt", Options(settings=settings, tokenizer=[str(file) for file in files])

    return save


def random_ids(seed=0):
    generator = torch.Generator().manual_seed(seed)
    source_ids = torch.randint(2, len(WORDS["zh"]), (3, 7), generator=generator)
    return source_ids, torch.randint(2, len(WORDS["en"]), (3, 6), generator=generator)


def assert_same_logits(folder, model, tolerance=2e-5):
    source_ids, target_ids = random_ids()
    loaded = FunTransformerForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        ours, theirs = loaded(input_ids=source_ids, decoder_input_ids=target_ids).logits, model(source_ids, target_ids)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"norm_first": True, "activation": "gelu"}, {"norm_position": "pre", "activation_function": "gelu"}),
        ({"bias": False}, {}),
    ],
    ids=["post-norm", "pre-norm", "without biases"],
)
def test_the_tutorial_model_gives_torch_s_own_logits(options, settings, save, tmp_path):
    model = Tutorial(**options)
    source, given = save(model, **settings)
    _, agreement = convert(source, tmp_path / "out", options=given)
    assert agreement.difference < 2e-5
    assert_same_logits(tmp_path / "out", model)


def test_a_bias_that_is_large_beside_the_weights_is_folded_into_them(save, tmp_path):
    model = Tutorial()
    source, given = save(model)
    state = torch.load(source, weights_only=True)
    state["generator.bias"] = 20 * torch.randn(len(WORDS["en"]))
    state["transformer.decoder.norm.bias"].zero_()  # sum_i b_i / g_i is 0: without a move there would be no place
    torch.save(state, source)
    model.load_state_dict(state)
    convert(source, tmp_path / "out", options=given)
    assert_same_logits(tmp_path / "out", model, tolerance=5e-5)


def test_the_folder_translates_by_itself(save, tmp_path):
    model = Tutorial()
    source, given = save(model)
    convert(source, tmp_path / "out", options=given)
    translate = pipeline("translation", model=str(tmp_path / "out"), guard=False)
    texts = ["我 吃 苹果 了", "狗 看 猫", "猫"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(texts[0]).input_ids == [2, 4, 5, 6, 7, 3]
    for text, found in zip(texts, translate(texts, num_beams=1, max_new_tokens=8)):
        ids = [2]
        while len(ids) <= 8 and (len(ids) == 1 or ids[-1] != 3):
            ids.append(
                model(torch.tensor(tokenizer(text).input_ids)[None], torch.tensor([ids]))[0, -1].argmax().item()
            )
        expected = [WORDS["en"][number] for number in ids if number > 3]
        assert found["translation_text"] == " ".join(expected)


def test_weights_of_other_names_are_mapped_and_learned_positions_kept(save, tmp_path):
    class Other(nn.Module):
        """Batch first, learned positions, no scale, one embedding for all."""

        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(len(WORDS["zh"]), WIDTH)
            self.places = nn.Embedding(LENGTH, WIDTH)
            self.core = nn.Transformer(WIDTH, HEADS, 2, 2, 24, batch_first=True)

        def forward(self, source_ids, target_ids):
            embedded = [self.words(ids) + self.places.weight[: ids.shape[1]] for ids in (source_ids, target_ids)]
            mask = nn.Transformer.generate_square_subsequent_mask(target_ids.shape[1])
            return self.core(*embedded, tgt_mask=mask) @ self.words.weight.T

    model = Other()
    source, given = save(model, names=lambda name: f"module.{name}", scale_embedding=False)
    names = {"words": "embedding", "places": "positions"}
    options = Options(names, given.settings, given.tokenizer[:1])
    convert(source, tmp_path / "out", options=options)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert loaded.config.tie_word_embeddings and loaded.config.share_encoder_decoder_embeddings
    source_ids, target_ids = (ids.clamp(max=len(WORDS["zh"]) - 1) for ids in random_ids())
    with torch.no_grad():
        ours = loaded(input_ids=source_ids, decoder_input_ids=target_ids).logits
        torch.testing.assert_close(ours, model(source_ids, target_ids), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.update(gate=torch.ones(2)), ["gate", "--map"]),
        (lambda state: state.pop("tgt_tok_emb.embedding.weight"), ["tgt_embedding", "--map"]),
        (lambda state: state["positional_encoding.pos_embedding"].add_(1), ["sin and cos"]),
        (lambda state: state.pop("transformer.encoder.norm.weight"), ["ends in a norm"]),
        (lambda state: state.pop("transformer.decoder.layers.1.norm3.weight"), ["lacks", "final_layer_norm"]),
        (lambda state: state.update({"generator.weight": torch.ones(5, WIDTH)}), ["lm_head", "(5, 16)"]),
    ],
)
def test_what_has_no_place_is_refused_and_nothing_written(change, words, save, tmp_path):
    source, given = save(Tutorial())
    state = torch.load(source, weights_only=True)
    change(state)
    torch.save(state, source)
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        convert(source, tmp_path / "out", "torch", given)
    assert not (tmp_path / "out").exists()


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save(Tutorial(), tmp_path / "model.pt")  # a whole module: pickled classes
    with pytest.raises(ValueError, match=r"state_dict\(\)"):
        convert(tmp_path / "model.pt", tmp_path / "out", "torch")


def test_the_command_says_what_it_did_and_what_is_missing(save, tmp_path, capsys):
    source, given = save(Tutorial())
    words = ["convert", str(source), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "--tokenizer" in capsys.readouterr().err
    words += ["--tokenizer", *given.tokenizer, "--set", "decoder_attention_heads=4"]
    assert cli.main([*words, "--set", "encoder_attention_head=4"]) == 2
    assert "encoder_attention_head" in capsys.readouterr().err
    assert cli.main([*words, "--set", "encoder_attention_heads=4"]) == 0
    said = capsys.readouterr().out
    assert "logits differ by at most" in said and "11 tokens and 12 of the target" in said
    assert cli.main(words) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "it is empty"), (b"hello" * 9, "it is no file that torch.save wrote")]
)
@pytest.mark.parametrize("kind", [[], ["--from", "torch"], ["--from", "eole"]])
def test_a_file_that_cannot_be_read_says_why(content, reason, kind, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(content)
    assert cli.main(["convert", str(tmp_path / "model.pt"), "-o", str(tmp_path / "out"), *kind]) == 2
    assert f"model.pt cannot be read: {reason}" in capsys.readouterr().err
