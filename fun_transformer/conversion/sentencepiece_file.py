"""Reads SentencePiece's .model files (a protocol buffer) without that library, and makes tokenizers of them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..tokenization_fun_transformer import SPACE

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, USER_DEFINED, BYTE = 1, 2, 4, 6  # kinds of pieces; control pieces never come from a text
NEVER = -1e6  # a score that no text prefers
MANY = 10**6


@dataclass(frozen=True)
class SentencePiece:
    """What a .model file says.

    Attributes:
        pieces: Text, score and kind of each.
        model_type: `UNIGRAM` or `BPE`.
        charsmap: How characters are normalised, compiled; empty for not at all.
        add_dummy_prefix: A space is put before the text.
        remove_extra_whitespaces: Runs of spaces become one, and those at the ends go.
        treat_whitespace_as_suffix: Spaces belong to the word before them.
    """

    pieces: list[tuple[str, float, int]]
    model_type: int
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    treat_whitespace_as_suffix: bool

    @property
    def texts(self) -> list[str]:
        """The pieces that a text may be cut into."""
        return [text for text, _, kind in self.pieces if kind in (NORMAL, USER_DEFINED, BYTE)]


def read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protocol buffer: an int, or the bytes of what is inside."""

    def number(at: int) -> tuple[int, int]:
        value, shift = 0, 0
        while True:
            byte = data[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return value, at

    at = 0
    while at < len(data):
        key, at = number(at)
        wire = key & 7
        if wire == 0:
            value, at = number(at)
            yield key >> 3, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield key >> 3, data[at : at + size]
            at += size
        elif wire == 2:
            size, at = number(at)
            if at + size > len(data):
                raise ValueError("the file ends in the middle")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def read_sentencepiece(path: Path) -> SentencePiece:
    """Read a .model file.

    Raises:
        ValueError: It is none, or of a type other than unigram and BPE.
        OSError: It cannot be read.
    """
    pieces, trainer, normalizer = [], {}, {}
    try:
        for number, value in read_fields(path.read_bytes()):
            if number == 1:
                piece = dict(read_fields(value))
                score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                pieces.append((piece[1].decode(), score, piece.get(3, NORMAL)))
            elif number == 2:
                trainer = dict(read_fields(value))
            elif number == 3:
                normalizer = dict(read_fields(value))
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, struct.error, ValueError) as error:
        raise ValueError(f"{path} is no SentencePiece model: {error}.") from error
    model_type = trainer.get(3, UNIGRAM)
    if not pieces or model_type not in (UNIGRAM, BPE):
        raise ValueError(f"{path} is no SentencePiece model of type unigram or bpe.")
    return SentencePiece(
        pieces,
        model_type,
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
        bool(trainer.get(24, 0)),
    )


def build_backend(model: SentencePiece, vocab: dict[str, int], unknown: str) -> Tokenizer:
    """Make a tokenizer that cuts texts as SentencePiece does, and numbers the pieces as a vocabulary does.

    Args:
        model: Read from a .model file.
        vocab: Piece -> number, from 0 without gaps; other tokens may be among them, pieces may be missing if unigram.
        unknown: The token of what is not in the vocabulary.

    Raises:
        ValueError: The model marks spaces behind words.
    """
    if model.treat_whitespace_as_suffix:
        raise ValueError("The SentencePiece model marks spaces behind words (treat_whitespace_as_suffix).")
    scores = {text: score for text, score, kind in model.pieces if kind in (NORMAL, USER_DEFINED, BYTE)}
    has_bytes = any(kind == BYTE for _, _, kind in model.pieces)
    if model.model_type == UNIGRAM:
        entries = [(text, scores.get(text, NEVER)) for text in sorted(vocab, key=vocab.__getitem__)]
        backend = Tokenizer(models.Unigram(entries, unk_id=vocab[unknown], byte_fallback=has_bytes))
    else:
        merges = find_merges({text: score for text, score in scores.items() if text in vocab})
        backend = Tokenizer(
            models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes, ignore_merges=False)
        )
    backend.normalizer = build_normalizer(model)
    scheme = "always" if model.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    leading = MANY if model.remove_extra_whitespaces else int(model.add_dummy_prefix)  # spaces that are not text
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", leading, 0)]
    backend.decoder = decoders.Sequence(steps)
    return backend


def build_normalizer(model: SentencePiece) -> normalizers.Normalizer:
    """Make what SentencePiece does to a text before it is cut."""
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" +"), " "), normalizers.Strip()]
    return normalizers.Sequence(steps)


def find_merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Return the merges of a BPE model in their order: each piece that is made of two others, by falling score."""
    merges = []
    for text, score in scores.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in scores and right in scores:
                merges.append((score, scores[left], scores[right], left, right))
    merges.sort(key=lambda merge: (-merge[0], -merge[1], -merge[2]))
    return [(left, right) for *_, left, right in merges]
