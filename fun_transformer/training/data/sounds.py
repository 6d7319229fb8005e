"""From a file of sound to what a feature extractor reads: one channel, 16,000 samples a second, numbers in [-1, 1].

WAV files of whole numbers are read by Python's own `wave`; all other forms (FLAC, OGG, MP3) by soundfile.
"""

import io
import math
import wave
from functools import lru_cache

import numpy as np

RATE = 16_000  # samples a second
ZEROS = 16  # zeros of the sinc on each side of its middle: the more, the sharper the filter
BLOCK = 2**12  # samples that are resampled at once, times `up`
UNKNOWN_LENGTH = 2**31 - 2**16  # bytes: what programs write that do not know the length yet
SHORTEST = 0.035  # seconds: two frames of the spectrogram; one alone has no variance to divide by


class BadSource(ValueError):
    """A recording or picture that cannot be used; the text says why, without its name."""


def read_sound(content: bytes) -> tuple[np.ndarray, list[str]]:
    """Read a recording.

    Args:
        content: Of the file.

    Returns:
        Samples (samples,) in float32, 16,000 a second, and what was changed to get them.

    Raises:
        BadSource: It cannot be read, is shorter than 35 ms, or silent.
        ImportError: It is no WAV file, and soundfile is not installed.
    """
    channels, rate = decode(content)  # (samples, channels)
    changed = []
    if channels.shape[1] > 1:
        changed.append("with several channels: their mean is read")
    samples = channels.mean(axis=1, dtype=np.float32)  # (samples,)
    if not np.isfinite(samples).all():
        raise BadSource("not a finite number in the recording")
    if rate != RATE:
        changed.append(f"not of {RATE:,} samples a second: resampled")
        samples = resample(samples, rate, RATE)
    if len(samples) < SHORTEST * RATE:
        raise BadSource("shorter than 35 ms")
    if np.ptp(samples) == 0:
        raise BadSource("silent from beginning to end")
    return samples, changed


def decode(content: bytes) -> tuple[np.ndarray, int]:
    """Return the samples of a file in [-1, 1], (samples, channels), and how many there are a second.

    Raises:
        BadSource: It cannot be read, was cut off, or is no WAV file where soundfile is not installed.
    """
    if not content:
        raise BadSource("an empty file")
    try:
        with wave.open(io.BytesIO(content)) as file:
            return decode_pcm(file), file.getframerate()
    except (wave.Error, EOFError):  # another form, or damaged
        pass
    try:
        import soundfile
    except ImportError as error:
        if content[:4] == b"RIFF":
            raise BadSource("a WAV file that is damaged, or not of whole numbers") from error
        raise BadSource("no WAV file, and there is no soundfile for others: pip install soundfile") from error
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except Exception as error:  # each form has its own
        raise BadSource("not readable as sound") from error
    return samples, rate


def decode_pcm(file: wave.Wave_read) -> np.ndarray:
    """Return the samples of an open WAV file in [-1, 1]: (samples, channels).

    Raises:
        BadSource: The file ends before the last sample.
    """
    width, content = file.getsampwidth(), file.readframes(file.getnframes())
    wanted = file.getnframes() * width * file.getnchannels()
    if len(content) < wanted < UNKNOWN_LENGTH:
        raise BadSource("cut off: its header promises more samples")
    content = content[: len(content) - len(content) % (width * file.getnchannels())]
    if width == 1:  # the only one without a sign
        samples = (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        whole = np.zeros((len(content) // 3, 4), np.uint8)
        whole[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        samples = whole.view("<i4")[:, 0].astype(np.float32) / 2**31
    else:
        samples = np.frombuffer(content, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return samples.reshape(-1, file.getnchannels())


@lru_cache(maxsize=16)
def filters(up: int, down: int) -> np.ndarray:
    """Return windowed sinc filters, one for each place between two samples at which a new one may lie: (up, taps)."""
    cut = min(1.0, up / down)  # of the frequencies; above half the lower rate there must be nothing
    reach = math.ceil(ZEROS / cut)
    places = np.arange(-reach, reach + 1) - np.arange(up)[:, None] / up  # (up, taps)
    window = np.where(abs(places) < reach, np.cos(np.pi * places / (2 * reach)) ** 2, 0.0)
    return (cut * np.sinc(cut * places) * window).astype(np.float32)


def resample(samples: np.ndarray, old_rate: int, rate: int) -> np.ndarray:
    """Return a recording with another number of samples a second, by a sinc filter with a window of a cosine.

    Args:
        samples: (samples,).
        old_rate: Samples a second.
        rate: Those that are wanted.
    """
    common = math.gcd(old_rate, rate)
    up, down = rate // common, old_rate // common
    table = filters(up, down)
    reach = table.shape[1] // 2
    padded = np.pad(samples, (reach, reach + 1))
    parts = [np.zeros(0, np.float32)]
    for first in range(0, len(samples) * up // down, BLOCK * up):
        wanted = (
            np.arange(first, min(first + BLOCK * up, len(samples) * up // down)) * down
        )  # in parts of an old sample
        windows = np.lib.stride_tricks.sliding_window_view(padded, table.shape[1])  # (places, taps)
        if down == 1:  # all new samples of a place at once
            parts.append((windows[first // up : -(-(wanted[-1] + 1) // up)] @ table.T).ravel()[: len(wanted)])
        else:
            parts.append(np.einsum("nt,nt->n", windows[wanted // up], table[wanted % up]))
    return np.concatenate(parts)
