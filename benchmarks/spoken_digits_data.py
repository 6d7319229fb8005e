"""The data of spoken-digits: strings of digits, joined from recordings of single ones by the same speaker.

    python -m benchmarks.spoken_digits_data recordings.tar.xz data/spoken-digits

The training rows are strings and each recording alone.
The recordings are those of the Free Spoken Digit Dataset (Jackson and others, CC BY-SA 4.0), 50 of each digit by each
of six speakers. Its official test recordings, 0 to 4 of each, are in the test strings and nowhere else; 5 to 9 are
those of validation. `digits.jsonl` has the official test recordings one by one.
"""

import argparse
import io
import json
import tarfile
import wave
from pathlib import Path

import numpy as np

RATE = 8_000  # samples a second
LONGEST = 7  # digits of a string
PAUSE = 0.15  # seconds at most, before, between and after the digits
NOISE = 4  # of the pauses: standard deviation, of 32,768
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = {"train": (range(10, 50), 10_000), "validation": (range(5, 10), 300), "test": (range(5), 600)}


def read_recordings(archive: Path) -> dict[tuple[int, str, int], np.ndarray]:
    """Return the samples of each recording by digit, speaker and number."""
    recordings = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".wav") or (file := tar.extractfile(member)) is None:
                continue
            digit, speaker, number = Path(member.name).stem.split("_")
            with wave.open(io.BytesIO(file.read())) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            recordings[int(digit), speaker, int(number)] = samples
    return recordings


def pause(rng: np.random.Generator) -> np.ndarray:
    """Return a pause of a random length, (samples,): quiet, but not silent."""
    return rng.normal(0, NOISE, rng.integers(1, int(PAUSE * RATE))).astype(np.int16)


def write_sound(path: Path, samples: np.ndarray) -> None:
    """Write a recording."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def write_strings(
    recordings: dict[tuple[int, str, int], np.ndarray], part: str, folder: Path, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Write the strings of a part of the data; return their rows."""
    numbers, count = PARTS[part]
    speakers = sorted({speaker for _, speaker, _ in recordings})
    rows = []
    for row in range(count):
        speaker, digits = rng.choice(speakers), rng.integers(0, 10, rng.integers(1, LONGEST + 1))
        pieces = [pause(rng)]
        for digit in digits:
            pieces += [recordings[int(digit), str(speaker), int(rng.choice(numbers))], pause(rng)]
        path = Path(part, f"{row:05}.wav")
        write_sound(folder / path, np.concatenate(pieces))
        rows.append({"audio": str(path), "text": " ".join(WORDS[digit] for digit in digits), "speaker": str(speaker)})
    return rows


def write_singles(recordings: dict[tuple[int, str, int], np.ndarray], part: str, folder: Path) -> list[dict[str, str]]:
    """Write the recordings of a part of the data one by one; return their rows."""
    rows = []
    for (digit, speaker, number), samples in sorted(recordings.items()):
        if number in PARTS[part][0]:
            path = Path(part, f"{digit}_{speaker}_{number}.wav")
            write_sound(folder / path, samples)
            rows.append({"audio": str(path), "text": WORDS[digit], "speaker": speaker})
    return rows


def main() -> None:
    """Read the archive, write the folder."""
    parser = argparse.ArgumentParser(description="Write the data of hub_configs/spoken-digits.")
    parser.add_argument("archive", type=Path, help="recordings.tar.xz of the Free Spoken Digit Dataset")
    parser.add_argument("folder", type=Path, help="gets train, validation and test: recordings and .jsonl")
    arguments = parser.parse_args()
    recordings = read_recordings(arguments.archive)
    rows = {}
    for number, part in enumerate(PARTS):
        rng = np.random.default_rng((2017, number))  # other strings stay as they are if a part gets more
        (arguments.folder / part).mkdir(parents=True, exist_ok=True)
        singles = write_singles(recordings, part, arguments.folder)
        rows[part] = write_strings(recordings, part, arguments.folder, rng)
        if part == "train":  # what is short is learned first
            rows[part] += singles
        if part == "test":
            rows["digits"] = singles
    for name, part_rows in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in part_rows)
        (arguments.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
