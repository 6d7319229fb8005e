"""Tokenizers made of SentencePiece's .model files cut texts as that library does."""

import pytest

from fun_transformer.conversion.sentencepiece_file import build_backend, read_sentencepiece

sentencepiece = pytest.importorskip("sentencepiece")

LINES = [
    "The black cat sat on the mat, and the dog saw it.",
    "Another dog ran away from the cats; nobody knew why.",
    "今天我们吃什么？我们吃苹果。",
    "The whole street was asleep when the cats came back.",
    'He said: "I don\'t know what 12 or 345 apples cost!"',
    "ﬁne ＡＢＣ １２３ café naïve",
]
TEXTS = [
    *LINES,
    "",
    " ",
    "the  cat   sat ",
    "unseen: ж 🙂🙂 words",
    "苹果 and 今天",
    "\tTabs\nand\u3000spaces\u200b here",
    "aaaaaaaaaa cats' ﬁlm",
    "的的 zzz 猫",
]


@pytest.fixture(scope="module", params=["unigram", "bpe", "unigram with bytes", "bpe with bytes", "no prefix"])
def model(request, tmp_path_factory):
    """A trained .model file."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "lines.txt").write_text("\n".join(LINES * 20), encoding="utf-8")
    has_bytes = "bytes" in request.param
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"),
        model_prefix=str(folder / "spm"),
        vocab_size=400 if has_bytes else 140,
        model_type="bpe" if "bpe" in request.param else "unigram",
        character_coverage=0.98,
        byte_fallback=has_bytes,
        add_dummy_prefix=request.param != "no prefix",
        hard_vocab_limit=False,
        pad_id=3,
        minloglevel=2,
    )
    return folder / "spm.model"


def test_texts_are_cut_and_joined_as_the_library_does(model):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocab = {theirs.id_to_piece(number): number for number in range(len(theirs))}
    ours = build_backend(read_sentencepiece(model), vocab, "<unk>")
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text).ids == ids, text
        if theirs.unk_id() not in ids:  # which the library writes as " ⁇ ", and ours leaves out
            assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids), text


def test_other_files_are_refused(tmp_path):
    for name, data in (("text", b"the cat sat on the mat"), ("cut", b"\x0a\x7f\x0a"), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="no SentencePiece model"):
            read_sentencepiece(tmp_path / name)
