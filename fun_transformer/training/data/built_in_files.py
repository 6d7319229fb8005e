"""Data sets of files that are made here: `builtin:espeak-digits`, `builtin:handwritten-digits`, `builtin:formulas`.

Their rows are always the same (but that a voice has another breath each time), and no part of a test row is in
training: neither its voice, nor its digits, nor its formula.
"""

import ctypes
import importlib.util
import io
import random
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from ..recipe.arguments import SPLITS, SplitArguments
from .columns import BYTES, PAIR, check_columns
from .files import from_generator
from .formulas import draw_formula, random_formula
from .report import RowReport

SEED = 2017
SIZES = {"train": 10_000, "validation": 300, "test": 500}
FORMULAS = {"train": 12_000, "validation": 300, "test": 500}
FILE_PAIR = datasets.Features({**PAIR, BYTES: datasets.Value("large_binary")})
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_DIGITS = 7
# Of eSpeak NG: an accent, and a voice that speaks it.
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")
VOICES = {
    "train": ("m1", "m2", "m3", "m5", "m6", "m8", "f1", "f2", "f4", "f5", "Andy", "Annie", "Gene", "Lee", "Mario"),
    "validation": ("m4", "linda"),
    "test": ("m7", "f3", "Alicia", "Michael"),
}
DIGIT_IMAGES = {
    "train": (0, 1_300),
    "validation": (1_300, 1_500),
    "test": (1_500, 1_797),
}  # written by different people
HEIGHT = 32  # pixels of a picture of digits


def split_seed(split: str) -> int:
    """Return a seed for the rows of a split."""
    return SEED + SPLITS.index(split)


def string_length(split: str, rng: random.Random) -> int:
    """Return the length of a string of digits; in training short ones are more frequent: they are learned first."""
    return rng.randint(1, rng.randint(1, MOST_DIGITS) if split == "train" else MOST_DIGITS)


class Speaker:
    """eSpeak NG, a program that speaks: text to WAV files.

    Raises:
        ValueError: espeakng-loader, which brings the program, is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("espeakng_loader") is None:
            raise ValueError(
                "The voices of builtin:espeak-digits are in the package espeakng-loader, which is not installed: "
                "pip install 'fun-transformer[speech]'"
            )
        import espeakng_loader

        self.library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        retrieve = 2  # samples to a function, and return when all are there
        self.rate = self.library.espeak_Initialize(retrieve, 0, str(espeakng_loader.get_data_path()).encode(), 0)
        self.parts: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self.take)  # kept as long as the library may call it
        self.library.espeak_SetSynthCallback(self.callback)

    def take(self, samples: int | None, count: int, events: int | None) -> int:
        """Keep samples that the library gives."""
        if samples and count:
            self.parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, text: str, voice: str, speed: int, pitch: int) -> bytes:
        """Return a recording of a text as a WAV file.

        Args:
            text: In the language of the voice.
            voice: Accent and speaker, such as "en-us+f3".
            speed: Words a minute.
            pitch: From 0 to 99.
        """
        self.parts.clear()
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # breath is noise
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice}.")
        self.library.espeak_SetParameter(1, speed, 0)
        self.library.espeak_SetParameter(3, pitch, 0)
        content = text.encode() + b"\0"
        self.library.espeak_Synth(content, len(content), 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(self.rate)
            sound.writeframes(b"".join(self.parts))
        return file.getvalue()


def spoken_digits(split: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, text, WAV file) of strings of digits, by voices that no other split has."""
    speaker, rng = Speaker(), random.Random(split_seed(split))
    for row in range(SIZES[split]):
        text = " ".join(rng.choices(WORDS, k=string_length(split, rng)))
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(VOICES[split])}"
        yield f"{row:05} {voice}", text, speaker.say(text, voice, rng.randint(130, 210), rng.randint(30, 70))


def handwritten_digits(split: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, text, PNG file) of strings of digits, drawn from scikit-learn's pictures of single ones.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from PIL import Image
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "builtin:handwritten-digits needs scikit-learn and Pillow: pip install scikit-learn pillow"
        ) from error
    found, rng = load_digits(), np.random.default_rng(split_seed(split))
    lengths = random.Random(split_seed(split))
    first, end = DIGIT_IMAGES[split]
    for row in range(SIZES[split]):
        chosen = rng.integers(first, end, string_length(split, lengths))
        pieces = []
        for image in found.images[chosen]:  # (8, 8), from 0 to 16
            size = int(rng.integers(20, HEIGHT - 3))
            ink = Image.fromarray((15.9 * image).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
            piece = np.zeros((HEIGHT, size + int(rng.integers(-4, 5))), np.uint8)
            top, width = int(rng.integers(0, HEIGHT - size + 1)), min(size, piece.shape[1])
            piece[top : top + size, :width] = np.asarray(ink)[:, :width]
            pieces.append(piece)
        line = np.concatenate(pieces, axis=1)
        line = np.pad(line, ((0, 0), (0, max(0, HEIGHT - line.shape[1]))))
        file = io.BytesIO()
        Image.fromarray(255 - line).save(file, "png")
        yield f"{row:05}", " ".join(str(found.target[place]) for place in chosen), file.getvalue()


def formulas(split: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, LaTeX, PNG file) of formulas; none is in two splits, and no two have the same picture."""
    rng, seen = random.Random(SEED), set[bytes]()
    for name in SPLITS[::-1]:  # the test rows first: they stay those if there are more for training
        count = 0
        while count < FORMULAS[name]:
            formula = random_formula(rng)
            picture = draw_formula(formula)
            if picture is None or picture in seen:
                continue
            seen.add(picture)
            count += 1
            if name == split:
                yield f"{count:05}", formula, picture
        if name == split:
            return


class MadeData(NamedTuple):
    """A data set that is made here: what its sources are, and what makes the rows of a split."""

    modality: str
    make: Callable[[str], Iterator[tuple[str, str, bytes]]]


MADE = {
    "builtin:espeak-digits": MadeData("speech", spoken_digits),
    "builtin:handwritten-digits": MadeData("image", handwritten_digits),
    "builtin:formulas": MadeData("image", formulas),
}


def generate_made(name: str, split: str, stamp: tuple) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split; `stamp` is for the cache alone (see `from_generator`)."""
    for source, target, content in MADE[name].make(split):
        yield {"source": source, "target": target, BYTES: content, "problem": "", "place": f"row {source}"}


def load_made(split: SplitArguments, name: str, report: RowReport, modality: str) -> datasets.Dataset:
    """Return one split of a data set that is made here.

    Raises:
        ValueError: There is no such split, its sources are of another kind, or a package is not installed.
    """
    made, part = MADE[split.dataset or ""], split.split or name
    if part not in SPLITS:
        raise ValueError(f"data.{name}.split={part}: {split.dataset} has {', '.join(SPLITS)}.")
    if made.modality != modality:
        raise ValueError(
            f"data.{name}.dataset={split.dataset} has sources of {made.modality}, and the objective reads {modality}. "
            f"Choose objective: {made.modality}_to_text."
        )
    check_columns({"source": "", "target": ""}, split, name)
    rows = from_generator(
        generate_made,
        [str(Path(__file__).with_name("formulas.py"))],
        FILE_PAIR,
        **{"split": part, "name": split.dataset},
    )
    report.add(split.dataset or "", "made here", len(rows), {})
    return rows
