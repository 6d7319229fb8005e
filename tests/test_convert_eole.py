"""Checkpoints of eole 0.6 and OpenNMT-py 3 become models of ours with equal logits, and nothing in them is run."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import pipeline

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.conversion import convert, find_reader
from tests.reference.torch_translator import TorchTranslator

ATTENTION = {"q": "linear_query", "k": "linear_keys", "v": "linear_values", "out": "final_linear"}
EOLE = {
    "linear1": "mlp.gate_up_proj",
    "linear2": "mlp.down_proj",
    "self_attn": "self_attn",
    "norm1": "input_layernorm",
}
OPENNMT = {"linear1": "feed_forward.w_1", "linear2": "feed_forward.w_2", "self_attn": "self_attn"}
NAMES = {
    "eole": {
        "attention": ATTENTION,
        "encoder": {**EOLE, "norm2": "post_attention_layernorm"},
        "decoder": {
            **EOLE,
            "multihead_attn": "context_attn",
            "norm2": "precontext_layernorm",
            "norm3": "post_attention_layernorm",
        },
    },
    "opennmt": {
        "attention": ATTENTION,
        "encoder": {**OPENNMT, "norm1": "layer_norm", "norm2": "feed_forward.layer_norm"},
        "decoder": {
            **OPENNMT,
            "multihead_attn": "context_attn",
            "norm1": "layer_norm_1",
            "norm2": "layer_norm_2",
            "norm3": "feed_forward.layer_norm",
        },
    },
}
SPECIAL = ["<unk>", "<blank>", "<s>", "</s>"]
SOURCE = [*SPECIAL, "我", "吃", "苹", "果", "averyunlikelytoken0"]
TARGET = [*SPECIAL, "i", "ate", "apples", ".", "the", "dog", "averyunlikelytoken0", "averyunlikelytoken1"]
SIZES = {"hidden_size": 16, "heads": 4, "transformer_ff": 24}


def translator(target=TARGET, source=SOURCE, **options):
    return TorchTranslator(len(source), len(target), norm_first=True, **{"output_bias": True, **options})


def norms(model):
    for stack in ("encoder", "decoder"):
        norm = getattr(model, stack).norm
        yield from ((f"{stack}.layer_norm.weight", norm.weight), (f"{stack}.layer_norm.bias", norm.bias))


def write_eole(folder, model, vocab=(SOURCE, TARGET), settings=None, **config):
    """Write a checkpoint as eole does; weights that are shared are saved once."""
    folder.mkdir()
    state = model.named(NAMES["eole"], ("encoder.transformer_layers", "decoder.transformer_layers")) | dict(
        norms(model)
    )
    state |= {"src_emb.embeddings.weight": model.source.weight, "tgt_emb.embeddings.weight": model.target.weight}
    state["generator.bias"] = model.output.bias
    if model.output.weight is not model.target.weight:
        state["generator.weight"] = model.output.weight
    if model.target is model.source:
        del state["tgt_emb.embeddings.weight"]
    for side, places in (("src", "source_places"), ("tgt", "target_places")):
        table = getattr(model, places).weight if model.positions else torch.zeros(50, 1, 16)
        state[f"{side}_emb.pe.weight" if model.positions else f"{side}_emb.pe.pe"] = table
    state |= {f"decoder.transformer_layers.{i}.layer_scalar": torch.ones(1) for i in range(3)}
    save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / "model.00.safetensors")
    stacks = {stack: {"layers": n, f"{stack}_type": "transformer"} for stack, n in (("encoder", 2), ("decoder", 3))}
    embeddings = {"position_encoding_type": "SinusoidalInterleaved"}
    if model.positions:
        embeddings = {"position_encoding_type": "Learned", "n_positions": model.positions}
    described = {"architecture": "transformer", **SIZES, **stacks, "embeddings": embeddings, **(settings or {})}
    (folder / "config.json").write_text(json.dumps({"model": described, **config}), encoding="utf-8")
    names = {"unk_token": "<unk>", "pad_token": "<blank>", "bos_token": "<s>", "eos_token": "</s>"}
    saved = {"src": vocab[0], "tgt": vocab[1], "decoder_start_token": "<s>", "specials": names}
    (folder / "vocab.json").write_text(json.dumps(saved), encoding="utf-8")
    return folder


def write_opennmt(path, model, **settings):
    """Write a checkpoint as OpenNMT-py does: settings in a Namespace, the output layer apart."""
    state = model.named(NAMES["opennmt"], ("encoder.transformer", "decoder.transformer_layers")) | dict(norms(model))
    for stack, embedding in (("encoder", model.source), ("decoder", model.target)):
        state[f"{stack}.embeddings.make_embedding.emb_luts.0.weight"] = embedding.weight
        state[f"{stack}.embeddings.make_embedding.pe.pe"] = torch.zeros(50, 1, 16)
    opt = {
        **SIZES,
        **{"enc_layers": 2, "dec_layers": 3, "encoder_type": "transformer", "decoder_type": "transformer"},
        **{"position_encoding": True, "position_encoding_type": "SinusoidalInterleaved", "layer_norm": "standard"},
        **{"norm_eps": 1e-6, "pos_ffn_activation_fn": "relu", "transforms": [], "data": {}, "share_embeddings": False},
        **settings,
    }
    vocab = {"src": SOURCE, "tgt": TARGET, "data_task": "seq2seq", "decoder_start_token": "<s>"}
    generator = {"weight": model.output.weight, "bias": model.output.bias}
    torch.save({"model": state, "generator": generator, "vocab": vocab, "opt": argparse.Namespace(**opt)}, path)
    return path


def assert_same_logits(folder, model, tolerance=2e-5):
    generator = torch.Generator().manual_seed(0)
    source_ids = torch.randint(4, len(SOURCE), (3, 7), generator=generator)
    target_ids = torch.randint(4, len(SOURCE), (3, 6), generator=generator)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = loaded(input_ids=source_ids, decoder_input_ids=target_ids).logits
    torch.testing.assert_close(ours, model(source_ids, target_ids), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_an_embedding_that_is_saved_once_is_that_of_both_sides(tied, tmp_path):
    model = translator(TARGET, TARGET)
    model.target = model.source
    if tied:
        model.output.weight = model.source.weight
    vocab = (TARGET, TARGET)
    folder = write_eole(tmp_path / "run", model, vocab, {"share_embeddings": True, "share_decoder_embeddings": tied})
    convert(folder, tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"tied": True, "activation": "gelu"}, {"share_decoder_embeddings": True, "mlp_activation_fn": "gelu"}),
        ({"positions": 40}, {}),
        ({"eps": 1e-3}, {"norm_eps": 1e-3}),
    ],
    ids=["apart", "tied", "learned", "eps"],
)
def test_an_eole_checkpoint_gives_the_logits_of_the_same_layers_in_torch(options, settings, tmp_path):
    model = translator(**options)
    folder = write_eole(tmp_path / "run", model, settings=settings)
    assert find_reader(folder) is find_reader(folder, "eole")
    convert(folder, tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)


def test_an_opennmt_checkpoint_gives_the_logits_of_the_same_layers_in_torch(tmp_path):
    model = translator(eps=1e-6)
    path = write_opennmt(tmp_path / "model_step_10.pt", model)
    assert find_reader(path) is find_reader(path, "eole")
    convert(path, tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)


def test_sources_have_no_end_and_strings_are_those_of_a_greedy_search(tmp_path):
    model = translator()
    converted, _ = convert(write_eole(tmp_path / "run", model), tmp_path / "out")
    tokenizer = converted.tokenizer
    assert tokenizer("我 吃 狗").input_ids == [4, 5, 0]
    assert tokenizer(text_target="i ate").input_ids == [4, 5, 3]
    with torch.no_grad():
        model.output.bias[[1, 10, 11]] = -1e4  # padding and what fills up are never generated
    translate = pipeline("translation", model=str(tmp_path / "out"), guard=False)
    for text in ("我 吃 苹 果", "果"):
        ids = model.greedy(tokenizer(text).input_ids, bos=2, eos=3)
        found = translate(text, max_new_tokens=10, num_beams=1, min_new_tokens=1)[0]["translation_text"]
        assert found == " ".join(TARGET[number] for number in ids if number > 3)


def test_pieces_that_the_vocabulary_lacks_are_read_as_unknown(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "run"
    lines = ["the cat saw the dog", "the dog saw a cat", "cats and dogs ran"] * 20
    (tmp_path / "lines").write_text("\n".join(lines), encoding="utf-8")
    prefix = str(tmp_path / "pieces")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines"), model_prefix=prefix, vocab_size=30, hard_vocab_limit=False, minloglevel=2
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    pieces = [theirs.id_to_piece(number) for number in range(3, len(theirs))]
    vocab = [*SPECIAL, *pieces[::2]]  # only every second piece
    model = translator(vocab, vocab)
    model.target = model.source
    settings = {"share_embeddings": True}
    files = {"sentencepiece": {"src_subword_model": "${MODEL_PATH}/pieces.model"}}
    write_eole(folder, model, (vocab, vocab), settings, transforms=["sentencepiece"], transforms_configs=files)
    (tmp_path / "pieces.model").rename(folder / "pieces.model")
    converted, _ = convert(folder, tmp_path / "out")
    expected = [
        vocab.index(piece) if piece in vocab else 0 for piece in theirs.encode("the cats saw dogs", out_type=str)
    ]
    assert 0 in expected
    found = converted.tokenizer("the cats saw dogs").input_ids
    assert [number if number < len(vocab) else 0 for number in found] == expected
    with torch.no_grad():
        ours = converted.model(input_ids=torch.tensor([found]), decoder_input_ids=torch.tensor([[2, 5, 6]])).logits
    theirs = model(torch.tensor([expected]), torch.tensor([[2, 5, 6]]))
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer_norm": "rms"}, "layer_norm: rms"),
        ({"parallel_residual": True}, "parallel_residual"),
        ({"mlp_activation_fn": "gated-silu"}, "gated-silu"),
        ({"embeddings": {"position_encoding_type": "Rotary"}}, "Rotary"),
        ({"decoder": {"decoder_type": "rnn", "layers": 3}}, "decoder is rnn"),
        ({"encoder": None}, "encoder is None"),
        ({"transformer_ff": 32}, "24.*32"),
    ],
)
def test_what_ours_cannot_say_is_refused(settings, words, tmp_path):
    folder = write_eole(tmp_path / "run", translator(), settings=settings)
    with pytest.raises(ValueError, match=words):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_other_objects_is_not_read(tmp_path):
    path = write_opennmt(tmp_path / "model.pt", translator(), fields=TorchTranslator)
    with pytest.raises(ValueError, match="could run any code"):
        convert(path, tmp_path / "out")
