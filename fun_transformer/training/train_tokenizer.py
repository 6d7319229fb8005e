"""Learn a vocabulary from raw text: byte-pair encoding, unigram, characters or words.

    python -m training.train_tokenizer --type bpe --vocab_size 8000 --output_dir tokenizer train.zh.gz train.en.gz

Ids 0..4 are `<pad> <s> </s> <unk> <mask>`. `bpe` and `unigram` then have the 256 bytes, the characters that cover
99.95 % of the text (SentencePiece's rule; the others are written as bytes), and what the algorithm learns.
"""

import argparse
import difflib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, trainers

from ..files import commit_folder
from ..tokenization_fun_transformer import (
    BYTE_TOKENS,
    SPACE,
    SPECIAL_TOKENS,
    FunTransformerTokenizer,
    build_pre_tokenizer,
    normalise,
)
from .data.readers import read_lines

TYPES = ["bpe", "unigram", "char", "word"]
LOWERCASE = ["none", "source", "both"]
NORMALIZATIONS = ["nfc", "nfd", "none"]
CHARACTER_COVERAGE = 0.9995


@dataclass(frozen=True)
class TokenizerSettings:
    """How a vocabulary is learned.

    Attributes:
        type: How sources are split: "bpe", "unigram", "char" or "word".
        vocab_size: Size of the vocabulary at most, special tokens and bytes included. Little text gives fewer tokens.
        target_type: How targets are split when not like sources: "char" and "word" may be mixed.
        target_vocab_size: Size of the target's own vocabulary at most; None: one vocabulary for both sides.
        lowercase: "none", "source" or "both" sides.
        normalization: The Unicode form of all text: "nfc", "nfd" (letters and Hangul syllables taken apart) or "none".
        min_frequency: How often a character, word or BPE merge must occur to be learned.

    Raises:
        ValueError: A name is unknown, the types do not fit together, or a vocabulary is too small for the bytes.
    """

    type: str = "bpe"
    vocab_size: int = 8000
    target_type: str | None = None
    target_vocab_size: int | None = None
    lowercase: str = "none"
    min_frequency: int = 1
    normalization: str = "nfc"

    @property
    def side_types(self) -> tuple[str, str]:
        """How sources and how targets are split."""
        return self.type, self.target_type or self.type

    def __post_init__(self) -> None:
        type, target_type = self.side_types
        _check_name("type", type, TYPES)
        _check_name("target_type", target_type, TYPES)
        _check_name("lowercase", self.lowercase, LOWERCASE)
        _check_name("normalization", self.normalization, NORMALIZATIONS)
        if type != target_type and self.target_vocab_size is None and not {type, target_type} <= {"char", "word"}:
            raise ValueError(
                f"type={type!r} and target_type={target_type!r} cannot share one vocabulary. "
                "Use the same type for both, mix char and word, or give target_vocab_size for two vocabularies."
            )
        _check_size("vocab_size", self.vocab_size, type)
        if self.target_vocab_size is not None:
            _check_size("target_vocab_size", self.target_vocab_size, target_type)

    @property
    def needs_targets(self) -> bool:
        """Whether the target side is treated differently, so that its texts must be known."""
        return self.target_vocab_size is not None or len(set(self.side_types)) > 1 or self.lowercase == "source"


def _check_name(field: str, value: str, allowed: list[str]) -> None:
    if value not in allowed:
        nearest = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{field}={value!r} is not one of {', '.join(allowed)}.{hint}")


def _check_size(field: str, size: int, type: str) -> None:
    smallest = len(SPECIAL_TOKENS) + (len(BYTE_TOKENS) + 3 if type in ("bpe", "unigram") else 2)
    if size < smallest:
        raise ValueError(
            f"{field}={size} leaves nothing to learn: the special tokens, {SPACE} and, for bpe and unigram, "
            f"the 256 bytes count too. Choose at least {smallest} for type={type!r}, in practice much more."
        )


def train_tokenizer(
    texts: Iterable[str], targets: Iterable[str] | None = None, settings: TokenizerSettings | None = None
) -> FunTransformerTokenizer:
    """Learn one vocabulary from the source texts and, where given, the target texts; or one for each side.

    Args:
        texts: The source side, or all text.
        targets: The target side. Needed where it is treated differently.
        settings: `TokenizerSettings()` when None.

    Returns:
        A tokenizer; the same texts give the same one.

    Raises:
        ValueError: There is no text to learn from, or no target text where it is needed.
    """
    settings = settings or TokenizerSettings()
    (type, target_type), lowercase = settings.side_types, settings.lowercase
    if settings.needs_targets and targets is None:
        raise ValueError(
            f"target_type={target_type!r} and lowercase={lowercase!r} treat the target side differently, "
            "but there are no targets to learn from. Give the target texts as well."
        )
    form = settings.normalization
    sources = [normalise(text, lowercase != "none", form) for text in texts]
    targets = [normalise(text, lowercase == "both", form) for text in targets or ()]
    if not any(sources) or (targets and not any(targets)):
        raise ValueError("There is no text to learn a vocabulary from. Give at least one line that is not blank.")

    if settings.target_vocab_size is not None:
        backend = _learn(sources, type, settings.vocab_size, settings.min_frequency)
        target_backend = _learn(targets, target_type, settings.target_vocab_size, settings.min_frequency)
        return FunTransformerTokenizer.from_backend(backend, type, target_type, lowercase, target_backend, form)
    if type == target_type:
        backend = _learn(sources + targets, type, settings.vocab_size, settings.min_frequency)
    else:
        counts = _count_symbols(sources, type) + _count_symbols(targets, target_type)
        backend = _build_symbols(counts, settings.vocab_size, settings.min_frequency)
    return FunTransformerTokenizer.from_backend(backend, type, target_type, lowercase, normalization=form)


def _learn(texts: list[str], type: str, vocab_size: int, min_frequency: int) -> Tokenizer:
    """Learn one vocabulary of any type from normalised texts."""
    if type in ("bpe", "unigram"):
        return _train_subwords(texts, type, vocab_size, min_frequency)
    return _build_symbols(_count_symbols(texts, type), vocab_size, min_frequency)


def _train_subwords(texts: list[str], type: str, vocab_size: int, min_frequency: int) -> Tokenizer:
    """Train BPE or unigram with the bytes as special tokens (ids 5..260), then make them ordinary ones."""
    reserved = [*SPECIAL_TOKENS.values(), *BYTE_TOKENS]
    alphabet, rare = _choose_alphabet(texts, vocab_size - len(reserved), min_frequency)
    if rare:  # no token is learned across a rare character
        rare_characters = re.compile("[" + re.escape("".join(rare)) + "]")
        texts = [rare_characters.sub(" ", text) for text in texts]
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": reserved,
        "initial_alphabet": alphabet,
        "show_progress": False,
    }
    trainer: trainers.BpeTrainer | trainers.UnigramTrainer
    if type == "bpe":
        trainer = trainers.BpeTrainer(min_frequency=min_frequency, **common)
    else:
        # Halving the candidates at each round takes 40 % less time than the default 0.75, for 0.4 % more tokens.
        unknown = SPECIAL_TOKENS["unk_token"]
        trainer = trainers.UnigramTrainer(unk_token=unknown, shrinking_factor=0.5, **common)
    backend = Tokenizer(models.BPE() if type == "bpe" else models.Unigram())
    backend.pre_tokenizer = build_pre_tokenizer(type)
    backend.train_from_iterator(texts, trainer)

    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in BYTE_TOKENS]
    state["model"]["byte_fallback"] = True
    if type == "bpe":
        state["model"]["unk_token"] = SPECIAL_TOKENS["unk_token"]
    else:
        learned = _settle_scores(state["model"]["vocab"][len(reserved) :], len(alphabet))
        state["model"]["vocab"][len(reserved) :] = learned
    return Tokenizer.from_str(json.dumps(state))


def _settle_scores(pieces: list[tuple[str, float]], alphabet_size: int) -> list[tuple[str, float]]:
    """Undo what differs from run to run in a unigram vocabulary, because the trainer walks through a hash map.

    The last digits of every score differ, and so does the order in which the characters that were pruned come back:
    each gets the lowest score plus another 0.0001. All of those get the lowest score here.
    """
    lowest = min(score for _, score in pieces)
    returned = lowest + 0.0001 * alphabet_size
    settled = [(piece, round(lowest if len(piece) == 1 and score < returned else score, 4)) for piece, score in pieces]
    return sorted(settled, key=lambda entry: (-entry[1], entry[0]))


def _choose_alphabet(texts: list[str], room: int, min_frequency: int) -> tuple[list[str], list[str]]:
    """Divide the characters into those that become tokens and those left to the bytes."""
    counts = _count_symbols(texts, "char")
    del counts[SPACE]
    ranked = _rank(counts)
    needed = CHARACTER_COVERAGE * counts.total()
    covered = accumulate((counts[character] for character in ranked), initial=0)
    enough = sum(before < needed for before in list(covered)[:-1])
    frequent = sum(count >= min_frequency for count in counts.values())
    kept = min(enough, frequent, room - 2)  # one for ▁, one for a learned piece (without it unigram overflows)
    return [SPACE, *ranked[:kept]], ranked[kept:]


def _count_symbols(texts: list[str], type: str) -> Counter:
    """Count the characters or words of normalised texts."""
    counts: Counter = Counter()
    pre_tokenizer = build_pre_tokenizer(type)
    for text in texts:
        if type == "char":
            counts.update(text.replace(" ", SPACE))
        else:
            counts.update(word for word, _ in pre_tokenizer.pre_tokenize_str(text))
    return counts


def _rank(counts: Counter) -> list[str]:
    """Sort by falling count, ties by code point: the order of the corpus does not matter."""
    return sorted(counts, key=lambda symbol: (-counts[symbol], symbol))


def _build_symbols(counts: Counter, vocab_size: int, min_frequency: int) -> Tokenizer:
    """Make the vocabulary of the most frequent symbols, ▁ always among them."""
    learned = [symbol for symbol in _rank(counts) if counts[symbol] >= min_frequency and symbol != SPACE]
    special_tokens = list(SPECIAL_TOKENS.values())
    symbols = [*special_tokens, SPACE, *(symbol for symbol in learned if symbol not in special_tokens)][:vocab_size]
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=SPECIAL_TOKENS["unk_token"]))
    backend.add_special_tokens(special_tokens)
    return backend


def save(tokenizer: FunTransformerTokenizer, output_dir: str | Path) -> None:
    """Save into a new folder, which appears only when it is complete.

    Raises:
        ValueError: The folder exists and has something in it.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} exists and is not an empty folder. Choose another output_dir, or remove it.")
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tokenizer.save_pretrained(partial)
        commit_folder(partial, output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Without the program's name; those of the process when None.
    """
    parser = argparse.ArgumentParser(prog="python -m training.train_tokenizer", description=__doc__.split("\n")[0])
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="text files (plain, .gz, .xz, .bz2 or .zst), a sentence a line"
    )
    parser.add_argument("--targets", nargs="+", metavar="FILE", help="text files of the target side")
    parser.add_argument("--type", default="bpe", help="bpe, unigram, char or word")
    parser.add_argument("--target_type", help="how the target side is split, when not like the source")
    parser.add_argument("--lowercase", default="none", help="none, source or both")
    parser.add_argument("--normalization", default="nfc", help="nfc, nfd or none: the Unicode form of all text")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--target_vocab_size", type=int, help="a vocabulary of its own for the target side")
    parser.add_argument("--min_frequency", type=int, default=1)
    parser.add_argument("--output_dir", required=True, help="a new folder")
    options = vars(parser.parse_args(arguments))
    files, targets, output_dir = options.pop("files"), options.pop("targets"), options.pop("output_dir")
    try:
        settings = TokenizerSettings(**options)
        texts, target_texts = (chain.from_iterable(map(read_lines, paths or ())) for paths in (files, targets))
        tokenizer = train_tokenizer(texts, target_texts if targets else None, settings)
        save(tokenizer, output_dir)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(tokenizer)} tokens in {output_dir}")


if __name__ == "__main__":
    main()
