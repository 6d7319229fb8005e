"""Converts a model, compares it with its source where that can be run, and writes it whole or not at all."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import commit_folder
from .readers import find_reader
from .source import Converted, Options, find_source

TOLERANCE = 1e-3  # of the largest logit; sums in another order differ by some 1e-6 of it


@dataclass(frozen=True)
class Agreement:
    """How the logits of a model compare with those of its source.

    Attributes:
        difference: The largest between two logits.
        largest: Logit by absolute value.
        logits: Number of those compared.
    """

    difference: float
    largest: float
    logits: int

    def __str__(self) -> str:
        return f"{self.logits} logits differ by at most {self.difference:.1e}, of up to {self.largest:.1f}"


def write(converted: Converted, output: str | Path) -> None:
    """Write model and tokenizer into a new folder, which appears only when it is complete.

    Raises:
        ValueError: The folder exists and has something in it.
    """
    output = check_output(output)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        converted.model.save_pretrained(partial)
        converted.tokenizer.save_pretrained(partial)
        commit_folder(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(output: str | Path) -> Path:
    """Return where to write.

    Raises:
        ValueError: The folder exists and has something in it.
    """
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder. Give another name, or remove it first.")
    return output


def compare(converted: Converted, seed: int = 0) -> Agreement | None:
    """Run source and model on the same random ids; None where the source cannot be run.

    Raises:
        ValueError: Their logits differ.
    """
    if converted.run is None:
        return None
    model, generator = converted.model, torch.Generator().manual_seed(seed)
    config = model.config
    pad = config.pad_token_id

    def ids(rows: int, length: int, vocab_size: int) -> torch.Tensor:
        drawn = torch.randint(vocab_size, (rows, length), generator=generator)  # (rows, length)
        return drawn.where(drawn != pad, (pad + 1) % vocab_size)

    source_ids = ids(4, 12, config.vocab_size)
    target_ids = ids(4, 10, getattr(config, "decoder_vocab_size", config.vocab_size))
    with torch.no_grad():
        ours = model(input_ids=source_ids, decoder_input_ids=target_ids).logits
    theirs = converted.run(source_ids, target_ids)
    if ours.shape != theirs.shape:
        raise ValueError(f"The source has logits of shape {tuple(theirs.shape)}, the model of {tuple(ours.shape)}.")
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    found = Agreement(difference, largest, theirs.numel())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ValueError(f"The converted model computes something else than its source: {found}.")
    return found


def convert(
    source: str | Path, output: str | Path, kind: str | None = None, options: Options | None = None
) -> tuple[Converted, Agreement | None]:
    """Convert a model of another tool, and write it as a folder that `from_pretrained` loads.

    Args:
        source: A file or folder of the tool, or the name of a model on the Hub.
        output: A folder that does not exist or is empty.
        kind: One of `READERS`; None: found out.
        options: What the source does not say.

    Returns:
        What was converted; how it agrees with its source where that can be run.

    Raises:
        ValueError: The source is of no known kind, is damaged, or has what a model of ours cannot say.
        OSError: There is no such source.
    """
    check_output(output)
    place = find_source(source)
    converted = find_reader(place, kind).read(place, options or Options())
    agreement = compare(converted)
    write(converted, output)
    return converted, agreement
