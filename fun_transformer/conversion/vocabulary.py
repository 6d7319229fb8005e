"""Tokens of other tools as tokenizers: their own words, characters or pieces, under their own numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..tokenization_fun_transformer import SPACE, FunTransformerTokenizer
from .sentencepiece_file import build_backend, read_sentencepiece

SPECIAL = {  # what they are called in vocabulary files
    "pad": ("<pad>", "[PAD]", "<blank>"),
    "bos": ("<bos>", "<s>", "<sos>", "[BOS]", "[SOS]"),
    "eos": ("<eos>", "</s>", "[EOS]"),
    "unk": ("<unk>", "[UNK]"),
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one side.

    Attributes:
        tokens: In the order of their numbers.
        pad, bos, eos, unk: Special tokens, which are among them.
        ends: Whether a text ends in `eos` when it is encoded.
        begins: Whether it begins with `bos`.
        others: More special tokens.
    """

    tokens: Sequence[str]
    pad: str
    bos: str
    eos: str
    unk: str
    ends: bool = True
    begins: bool = False
    others: Sequence[str] = ()

    def __post_init__(self) -> None:
        if missing := {self.pad, self.bos, self.eos, self.unk, *self.others} - set(self.tokens):
            raise ValueError(f"The vocabulary lacks the special tokens {', '.join(sorted(missing))}.")
        if len(set(self.tokens)) < len(self.tokens):
            raise ValueError("The vocabulary has a token twice.")

    @property
    def special_tokens(self) -> list[str]:
        """All special tokens."""
        return list(dict.fromkeys([self.pad, self.bos, self.eos, self.unk, *self.others]))

    @property
    def ids(self) -> dict[str, int]:
        """The number of each token."""
        return {token: number for number, token in enumerate(self.tokens)}


def whitespace_backend(vocabulary: Vocabulary, joiner: str = "") -> Tokenizer:
    """Make a tokenizer that cuts at single spaces, for texts that the tool's own tokenizer has cut.

    Args:
        vocabulary: Words or subwords.
        joiner: What a subword ends in that the next one belongs to, such as "@@"; decoding joins them.
    """
    backend = Tokenizer(models.WordLevel(vocabulary.ids, unk_token=vocabulary.unk))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    if joiner:  # words first get a mark at their beginning, those that continue a word lose it
        backend.decoder = decoders.Sequence(
            [
                decoders.Replace(Regex(r"\A"), SPACE),
                decoders.Fuse(),
                decoders.Replace(joiner + SPACE, ""),
                decoders.Replace(SPACE, " "),
                decoders.Strip(" ", 1, 0),
            ]
        )
    return finish(backend, vocabulary)


def character_backend(vocabulary: Vocabulary) -> Tokenizer:
    """Make a tokenizer that cuts into characters, a space being ▁."""
    backend = Tokenizer(models.WordLevel(vocabulary.ids, unk_token=vocabulary.unk))
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    return finish(backend, vocabulary)


def sentencepiece_backend(vocabulary: Vocabulary, model: Path) -> Tokenizer:
    """Make a tokenizer that cuts as a SentencePiece model does."""
    return finish(build_backend(read_sentencepiece(model), vocabulary.ids, vocabulary.unk), vocabulary)


def finish(backend: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """Give a tokenizer its special tokens and the end of a text."""
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in vocabulary.special_tokens])
    first, last = [vocabulary.bos] * vocabulary.begins, [vocabulary.eos] * vocabulary.ends
    if first or last:
        special = [(token, vocabulary.ids[token]) for token in (*first, *last)]
        single = " ".join([*first, "$A", *last])
        pair = " ".join([single, "$B:1", *(f"{token}:1" for token in last)])
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return backend


def with_lowercase(backend: Tokenizer) -> Tokenizer:
    """Let a tokenizer write all in small letters first."""
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
    backend.normalizer = normalizers.Sequence(steps)
    return backend


def build_tokenizer(
    source: Tokenizer, vocabulary: Vocabulary, target: Tokenizer | None = None
) -> FunTransformerTokenizer:
    """Make the tokenizer of a model.

    Args:
        source: Of the source side, or of both.
        vocabulary: The source's, which names the special tokens.
        target: Of the target side, if that has a vocabulary or an end of its own.
    """
    sides = {"source_type": "word", "target_type": "word", "lowercase": "none", "normalization": "none"}
    if target is not None:
        sides["target_tokenizer"] = target.to_str()
    others = {"extra_special_tokens": list(vocabulary.others)} if vocabulary.others else {}
    return FunTransformerTokenizer(
        tokenizer_object=source,
        **sides,
        pad_token=vocabulary.pad,
        bos_token=vocabulary.bos,
        eos_token=vocabulary.eos,
        unk_token=vocabulary.unk,
        **others,
    )


def load_tokenizer(paths: Sequence[str]) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """Load the tokenizer that a user names.

    Args:
        paths: A folder with a tokenizer of transformers; or files with one token a line, or a JSON file (token ->
            number, or a list), whose texts are cut at spaces: one file for both sides, or one for each.

    Returns:
        The tokenizer, and what a user should know.

    Raises:
        ValueError: It cannot be loaded.
        OSError: There is no such file.
    """
    if Path(paths[0]).is_dir():
        if len(paths) > 1:
            raise ValueError("A folder has the tokenizer of both sides: give one folder, or two vocabulary files.")
        try:
            return AutoTokenizer.from_pretrained(paths[0]), []
        except Exception as error:  # whatever a damaged file makes the library raise
            raise ValueError(f"{paths[0]} holds no tokenizer of transformers: {error}") from error
    tokens = [read_tokens(Path(path)) for path in paths]
    source = find_special(tokens[0], paths[0], begins=True)
    target = find_special(tokens[-1], paths[-1])
    note = f"texts are cut at spaces, and sources are read as {source.bos} ... {source.eos}, as tutorials do"
    return build_tokenizer(whitespace_backend(source), source, whitespace_backend(target)), [note]


def find_special(tokens: Sequence[str], path: str, begins: bool = False) -> Vocabulary:
    """Return the vocabulary of a file, whose special tokens are found by their usual names.

    Raises:
        ValueError: One is missing.
    """
    found: dict[str, str] = {}
    for name, called in SPECIAL.items():
        known = [token for token in called if token in tokens]
        if not known:
            raise ValueError(f"{path} lacks a token for {name}: {' or '.join(called)}.")
        found[name] = known[0]
    return Vocabulary(tokens, found["pad"], found["bos"], found["eos"], found["unk"], begins=begins)


def read_tokens(path: Path) -> list[str]:
    r"""Read the tokens of a vocabulary file in the order of their numbers.

    Raises:
        ValueError: It is no list of tokens.
        OSError: There is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text.removesuffix("\n").split("\n")
        found = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no vocabulary: {error}.") from error
    if isinstance(found, dict) and sorted(found.values()) == list(range(len(found))):
        found = sorted(found, key=found.__getitem__)
    if not isinstance(found, list) or not all(isinstance(token, str) for token in found):
        raise ValueError(f"{path} is neither a list of tokens nor an object of tokens and their numbers from 0.")
    return found
