"""Runs of JoeyNMT become models of ours with equal logits and strings; the layout of their files is JoeyNMT 2.3's."""

import copy

import pytest
import torch
import yaml
from transformers import AutoTokenizer, pipeline

from fun_transformer import FunTransformerForConditionalGeneration, cli
from fun_transformer.conversion import Options, convert, find_reader
from tests.reference.torch_translator import TorchTranslator

NAMES = {
    "attention": {"q": "q_layer", "k": "k_layer", "v": "v_layer", "out": "output_layer"},
    "encoder": {
        "self_attn": "src_src_att",
        "norm1": "layer_norm",
        "linear1": "feed_forward.pwff_layer.0",
        "linear2": "feed_forward.pwff_layer.3",
        "norm2": "feed_forward.layer_norm",
    },
    "decoder": {
        "self_attn": "trg_trg_att",
        "norm1": "x_layer_norm",
        "multihead_attn": "src_trg_att",
        "norm2": "dec_layer_norm",
        "linear1": "feed_forward.pwff_layer.0",
        "linear2": "feed_forward.pwff_layer.3",
        "norm3": "feed_forward.layer_norm",
    },
}
SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]
SOURCE = [*SPECIAL, "我", "吃", "苹", "果", "了", "。"]
TARGET = [*SPECIAL, "i", "ate", "apples", ".", "the", "dog", "?", ","]
STACK = {
    "type": "transformer",
    "num_heads": 4,
    "hidden_size": 16,
    "ff_size": 24,
    "dropout": 0.1,
    "embeddings": {"embedding_dim": 16, "scale": True},
}
CONFIG = {
    "name": "test",
    "data": {"src": {"lang": "zh", "level": "word"}, "trg": {"lang": "en", "level": "word"}},
    "testing": {"beam_size": 1, "beam_alpha": -1},
    "training": {"label_smoothing": 0.1},
    "model": {"encoder": {**STACK, "num_layers": 2}, "decoder": {**STACK, "num_layers": 3}},
}


def joey_state(model, tied):
    """What JoeyNMT's Model.state_dict() gives: shared weights once for each name, and tables of positions."""
    state = {
        **model.named(NAMES),
        "src_embed.lut.weight": model.source.weight,
        "trg_embed.lut.weight": model.source.weight if tied else model.target.weight,
        "decoder.output_layer.weight": model.output.weight,
        "encoder.pe.pe": torch.zeros(1, 50, 16),
        "decoder.pe.pe": torch.zeros(1, 50, 16),
    }
    for stack in ("encoder", "decoder"):
        norm = getattr(model, stack).norm
        if norm is not None:
            state |= {f"{stack}.layer_norm.weight": norm.weight, f"{stack}.layer_norm.bias": norm.bias}
    return state


@pytest.fixture
def write_run(tmp_path):
    """A function that writes the folder of a run: (model, change of the configuration, vocabularies) -> folder."""

    def write(model, change=lambda config: None, vocabularies=(SOURCE, TARGET), tied=False):
        folder, config = tmp_path / "run", copy.deepcopy(CONFIG)
        for stack in ("encoder", "decoder"):
            config["model"][stack]["layer_norm"] = "pre" if model.encoder.norm else "post"
        change(config)
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for name, tokens in zip(("src", "trg"), vocabularies):
            (folder / f"{name}_vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        state = {"model_state": joey_state(model, tied), "optimizer_state": {"state": {}}, "scaler_state": None}
        torch.save(state, folder / "120.ckpt")
        return folder

    return write


def assert_same_logits(folder, model, tolerance=2e-5):
    generator = torch.Generator().manual_seed(0)
    source_ids = torch.randint(4, model.source.num_embeddings, (3, 7), generator=generator)
    target_ids = torch.randint(4, model.target.num_embeddings, (3, 6), generator=generator)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = loaded(input_ids=source_ids, decoder_input_ids=target_ids).logits
    torch.testing.assert_close(ours, model(source_ids, target_ids), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_run_gives_the_logits_of_the_same_layers_in_torch(norm, write_run, tmp_path):
    activation = {"post": "relu", "pre": "gelu"}[norm]
    model = TorchTranslator(len(SOURCE), len(TARGET), norm_first=norm == "pre", activation=activation, eps=1e-6)

    def change(config):
        for stack in ("encoder", "decoder"):
            config["model"][stack]["activation"] = activation

    folder = write_run(model, change)
    assert find_reader(folder) is find_reader(folder / "120.ckpt") is find_reader(folder, "joeynmt")
    convert(folder, tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)


def test_shared_embeddings_stay_shared(write_run, tmp_path):
    model = TorchTranslator(len(SOURCE), len(SOURCE), eps=1e-6)
    model.target.weight = model.output.weight = model.source.weight
    folder = write_run(
        model,
        lambda config: config["model"].update(tied_embeddings=True, tied_softmax=True),
        (SOURCE, SOURCE),
        tied=True,
    )
    converted, _ = convert(folder, tmp_path / "out")
    assert converted.tokenizer.target_vocab_size is None
    assert_same_logits(tmp_path / "out", model)


def test_words_are_cut_at_spaces_and_strings_are_those_of_a_greedy_search(write_run, tmp_path):
    model = TorchTranslator(len(SOURCE), len(TARGET), eps=1e-6)
    convert(write_run(model), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("我 吃 苹果 了").input_ids == [4, 5, 0, 8, 3]
    assert tokenizer(text_target="i ate the cat .").input_ids == [4, 5, 8, 0, 7, 3]
    assert tokenizer.decode([4, 5, 8, 7, 3], skip_special_tokens=True) == "i ate the ."
    translate = pipeline("translation", model=str(tmp_path / "out"), guard=False)
    for text in ("我 吃 了 。", "苹 果", "了"):
        ids = model.greedy(tokenizer(text).input_ids, bos=2, eos=3)
        found = translate(text, max_new_tokens=10, num_beams=1)[0]["translation_text"]
        assert found == " ".join(TARGET[number] for number in ids if number > 3)


def test_characters_small_letters_and_normalised_spaces(write_run, tmp_path):
    def change(config):
        config["data"]["src"] |= {"level": "char", "lowercase": True}
        config["data"]["trg"] |= {"normalize": True}

    source = [*SPECIAL, "▁", "a", "b"]
    model = TorchTranslator(len(source), len(TARGET))
    convert(write_run(model, change, (source, TARGET)), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("aB c").input_ids == [5, 6, 4, 0, 3]
    assert tokenizer.decode([4, 11, 5, 10, 3], skip_special_tokens=True) == "i, ate?"
    assert tokenizer(text_target="the  dog　？").input_ids == [8, 0, 3]  # "the dog?", after NFKC


def test_subwords_are_joined_and_a_note_says_who_cuts(write_run, tmp_path):
    def change(config):
        for side in ("src", "trg"):
            config["data"][side] |= {"level": "bpe", "tokenizer_type": "subword-nmt"}

    tokens = [*SPECIAL, "ap@@", "ples", "ate", "th@@"]
    converted, _ = convert(write_run(TorchTranslator(8, 8), change, (tokens, tokens)), tmp_path / "out")
    assert any("subword-nmt" in note for note in converted.notes)
    assert converted.tokenizer("ate ap@@ ples").input_ids == [6, 4, 5, 3]
    assert converted.tokenizer.decode([6, 4, 5, 3], skip_special_tokens=True) == "ate apples"
    assert converted.tokenizer.decode([4, 7, 5, 5, 3], skip_special_tokens=True) == "apthples ples"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config["model"]["encoder"].update(type="recurrent"), "only transformer"),
        (lambda config: config["model"]["decoder"].update(alpha=1.2), "alpha=1.2"),
        (lambda config: config["model"]["encoder"].update(layer_norm="pre"), "encoder has layer_norm: pre"),
        (lambda config: [config["model"][s].update(activation="tanh") for s in ("encoder", "decoder")], "tanh"),
        (lambda config: config["model"]["decoder"].update(embeddings={"embedding_dim": 16}), "scale"),
        (lambda config: config["data"]["src"].update(has_prompt=True), "prompts"),
        (
            lambda config: [config["model"][s].update(hidden_size=32) for s in ("encoder", "decoder")],
            r"\(16, 16\) in the source",
        ),
    ],
)
def test_what_ours_cannot_say_is_refused(change, words, write_run, tmp_path):
    folder = write_run(TorchTranslator(len(SOURCE), len(TARGET)), change)
    with pytest.raises(ValueError, match=words):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_and_an_unknown_source_are_errors_of_one_line(write_run, tmp_path, capsys):
    folder = write_run(TorchTranslator(len(SOURCE), len(TARGET)))
    with pytest.raises(FileNotFoundError, match=r"7\.ckpt"):
        convert(folder, tmp_path / "out", options=Options(checkpoint="7.ckpt"))
    for source in (folder, next(folder.glob("*.ckpt"))):
        for kind in ([], ["--from", "joeynmt"]):
            (folder / "config.yaml").write_text("data: [", encoding="utf-8")
            assert cli.main(["convert", str(source), "-o", str(tmp_path / "out"), *kind]) == 2
            assert "config.yaml cannot be read" in capsys.readouterr().err
            (folder / "config.yaml").unlink()
            assert cli.main(["convert", str(source), "-o", str(tmp_path / "out"), *kind]) == 2
            assert "has no config.yaml" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["convert", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    assert "of no kind that is known" in capsys.readouterr().err
    assert cli.main(["convert", str(tmp_path / "nothing"), "-o", str(tmp_path / "out")]) == 2
    assert "no file or folder" in capsys.readouterr().err
