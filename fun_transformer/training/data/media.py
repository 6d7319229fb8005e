"""From recordings and pictures to features: each source is read once, checked, and kept on disk in float16.

The features are those of an extractor of transformers that is saved beside the model, so that a pipeline gets the same
ones. They are found again by content: that of the files and of the extractor's settings.
"""

import hashlib
import inspect
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, PreTrainedConfig, Speech2TextFeatureExtractor
from transformers.utils import is_speech_available

from ...frontends import output_lengths
from . import pictures, sounds
from .caching import processes_for, processes_of
from .columns import BYTES
from .files import progress_bars
from .sounds import BadSource

ROW_WORK = 200  # times as long as it takes to tokenize a text
ROWS = 16  # that are read at once: a recording may be minutes long
FEATURES = {"features": datasets.Value("large_binary"), "frames": datasets.Value("int32")}
FEATURES |= {"problem": datasets.Value("string"), "changed": datasets.List(datasets.Value("string"))}


class SourceReader:
    """Turn the content of a file into features, and features into the model's input.

    Args:
        extractor: Of transformers.
        config: The model's.
    """

    input_name: str

    def __init__(self, extractor: Any, config: PreTrainedConfig):
        self.extractor, self.config = extractor, config

    @classmethod
    def load(cls, folder: str | Path, config: PreTrainedConfig) -> "SourceReader":
        """Load the extractor that was saved beside a model."""
        raise NotImplementedError

    @classmethod
    def build(cls, config: PreTrainedConfig) -> "SourceReader":
        """Make an extractor for a fresh model."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """How many numbers a frame, or a column of pixels, has."""
        raise NotImplementedError

    def read(self, content: bytes) -> tuple[np.ndarray, list[str]]:
        """Return the features of a file, (frames, width), and what was changed to get them.

        Raises:
            BadSource: It cannot be used.
        """
        raise NotImplementedError

    def to_input(self, features: torch.Tensor) -> torch.Tensor:
        """Turn features (batch, frames, width) into what the model reads."""
        raise NotImplementedError

    def lengths(self, frames: np.ndarray) -> np.ndarray:
        """Return how many vectors the encoder reads for sources of these numbers of frames."""
        return np.asarray(output_lengths(self.config, frames))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make tensors of rows with `features` (frames, width), padded on the right.

        Returns:
            The model's input by its name, and `attention_mask` (batch, frames).
        """
        lengths = np.array([len(row["features"]) for row in rows])  # (batch,)
        padded = np.zeros((len(rows), lengths.max(), self.width), np.float32)  # (batch, frames, width)
        for place, row in zip(padded, rows):
            place[: len(row["features"])] = row["features"]
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)  # (batch, frames)
        return {self.input_name: self.to_input(torch.from_numpy(padded)), "attention_mask": torch.from_numpy(mask)}

    def settings(self) -> str:
        """Return everything that decides what features are made of a file."""
        settings = json.dumps(self.extractor.to_dict(), sort_keys=True, default=str)
        return f"{type(self.extractor).__module__} {is_speech_available()} {settings}"  # torchaudio's differ a little


class SpeechReader(SourceReader):
    """Log mel spectrograms, each bin with mean 0 and variance 1 over the recording: (frames, num_mel_bins)."""

    input_name = "input_features"

    @classmethod
    def load(cls, folder, config):
        return cls(AutoFeatureExtractor.from_pretrained(folder), config)

    @classmethod
    def build(cls, config):
        bins = config.num_mel_bins
        return cls(
            Speech2TextFeatureExtractor(feature_size=bins, num_mel_bins=bins, sampling_rate=sounds.RATE), config
        )

    @property
    def width(self):
        return self.config.num_mel_bins

    def read(self, content):
        samples, changed = sounds.read_sound(content)
        made = self.extractor(samples, sampling_rate=sounds.RATE, return_tensors="np")
        features = made["input_features"][0]  # (frames, num_mel_bins)
        if not np.isfinite(features).all():
            raise BadSource("silent in all frames, or in a band of frequencies")
        return features.astype(np.float16), changed

    def to_input(self, features):
        return features  # (batch, frames, num_mel_bins)


class ImageReader(SourceReader):
    """Pixels of a picture of one height, column by column: (columns, channels * height)."""

    input_name = "pixel_values"

    @classmethod
    def load(cls, folder, config):
        return cls(AutoImageProcessor.from_pretrained(folder), config)

    @classmethod
    def build(cls, config):
        settings = {
            "image_processor_type": "CLIPImageProcessor",  # the one that can keep a picture's shape
            "size": {"shortest_edge": config.image_height},  # the width follows
            "do_center_crop": False,
            "image_mean": [1.0] * config.num_channels,  # white paper is 0, as padding is
            "image_std": [0.25] * config.num_channels,
        }
        with tempfile.TemporaryDirectory() as folder:  # so that it is the one that will be loaded, whatever backend
            Path(folder, "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
            return cls.load(folder, config)

    @property
    def width(self):
        return self.config.num_channels * self.config.image_height

    def read(self, content):
        picture = pictures.read_picture(content)
        pixels = np.asarray(self.extractor(picture, return_tensors="np")["pixel_values"][0])
        if pixels.shape[:2] != (self.config.num_channels, self.config.image_height):
            raise BadSource(
                f"{pixels.shape[0]} colours of {pixels.shape[1]} pixels in height after the processor, not "
                f"{self.config.num_channels} of {self.config.image_height}"
            )
        return pixels.transpose(2, 0, 1).reshape(pixels.shape[2], -1).astype(np.float16), []

    def to_input(self, features):
        batch, columns, _ = features.shape
        shaped = features.view(batch, columns, self.config.num_channels, self.config.image_height)
        return shaped.permute(0, 2, 3, 1)  # (batch, num_channels, image_height, width)


READERS: dict[str, type[SourceReader]] = {"speech": SpeechReader, "image": ImageReader}


def row_content(source: str, content: bytes | None) -> bytes:
    """Return the content of a row's file.

    Raises:
        BadSource: There is no such file, or it cannot be opened.
    """
    if content is not None:
        return content
    try:
        return Path(source).read_bytes()
    except FileNotFoundError as error:
        raise BadSource("no such file") from error
    except OSError as error:
        raise BadSource("a file that cannot be opened") from error


def read_features(batch: dict[str, list[Any]], reader: SourceReader) -> dict[str, list[Any]]:
    """Return the features of a batch of rows with `source` and `content`; a problem where there are none."""
    made: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for source, content in zip(batch["source"], batch[BYTES], strict=True):
        features, changed, problem = np.zeros((0, reader.width), np.float16), list[str](), ""
        try:
            features, changed = reader.read(row_content(source, content))
        except BadSource as error:
            problem = f"source is {error}"
        values = (features.tobytes(), len(features), problem, changed)
        for name, value in zip(FEATURES, values, strict=True):
            made[name].append(value)
    return made


def content_digest(rows: datasets.Dataset) -> bytes:
    """Return a digest of the files of all rows: equal for equal files, wherever they are."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.select_columns(["source", BYTES]).iter(ROWS):
        for source, content in zip(batch["source"], batch[BYTES], strict=True):
            try:
                digest.update(hashlib.blake2b(row_content(source, content), digest_size=16).digest())
            except BadSource as error:
                digest.update(str(error).encode())
    return digest.digest()


def make_features(rows: datasets.Dataset, reader: SourceReader, title: str) -> datasets.Dataset:
    """Read the sources of all rows, or find the features of the same files on disk.

    Args:
        rows: With `source` and `content`.
        reader: Of the run.
        title: For the progress bar.

    Returns:
        The columns of `FEATURES`, in the order of the rows.
    """
    digest = hashlib.blake2b(content_digest(rows) + reader.settings().encode(), digest_size=16)
    for code in (__file__, sounds.__file__, pictures.__file__, inspect.getfile(type(reader.extractor))):
        digest.update(Path(str(code)).read_bytes())
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "fun_transformer"
    folder.mkdir(parents=True, exist_ok=True)
    key = f"features-{digest.hexdigest()}"
    with progress_bars(shown=len(rows) >= 500):
        return rows.map(
            read_features,
            batched=True,
            batch_size=ROWS,
            writer_batch_size=ROWS,
            fn_kwargs={"reader": reader},
            remove_columns=rows.column_names,
            features=datasets.Features(FEATURES),
            num_proc=processes_of(folder, key) or processes_for(ROW_WORK * len(rows)),
            cache_file_name=str(folder / f"{key}.arrow"),
            new_fingerprint=key,
            desc=title,
        )


def describe_changes(made: datasets.Dataset, name: str) -> str:
    """Say what was changed in the sources of a split to read them; "" where nothing was."""
    counts = Counter(change for changes in made["changed"] for change in changes)
    return "\n".join(f"{count:,} of {len(made):,} {name} recordings are {change}." for change, count in counts.items())
