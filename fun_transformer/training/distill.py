"""Sequence-level distillation: writes what one or several models make of texts, as training data for another model.

    python -m training.distill runs/a/model runs/b/model --sources words.txt --output distilled.jsonl

Models with one tokenizer decide each token together (an ensemble). The output has columns `source` and `target`; name
it beside the true pairs as a second corpus of `data.train` (Kim and Rush 2016; for words without a known
pronunciation, Sun et al. 2019).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..decoding.ensemble import check_ensemble, generate_together
from ..files import write_atomically
from .data.readers import read_lines


def generate_texts(
    models: Sequence[Any], tokenizer: Any, sources: Sequence[str], batch_size: int, **options: Any
) -> Iterator[tuple[str, str]]:
    """Yield each source with its generated text, longest sources first.

    Args:
        models: On one device, in evaluation mode.
        tokenizer: Of all of them.
        sources: Texts.
        batch_size: Sources generated at once.
        options: Of `generate_together`.
    """
    order = sorted(sources, key=len, reverse=True)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = tokenizer(batch, padding=True, return_tensors="pt").to(models[0].device)
        ids = generate_together(models, inputs.input_ids, inputs.attention_mask, **options)
        yield from zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
        print(f"\r{start + len(batch):,} of {len(order):,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.distill", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="model folders with one tokenizer")
    parser.add_argument("--sources", nargs="+", required=True, help="text files, one source a line")
    parser.add_argument("--output", type=Path, required=True, help="gets the rows (.jsonl)")
    parser.add_argument("--num_beams", type=int, default=5)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--length_penalty", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=256)
    options = parser.parse_args(argv)
    try:
        if not options.output.resolve().parent.is_dir():
            raise ValueError(f"There is no folder {options.output.parent} for {options.output.name}. Make it first.")
        tokenizer = AutoTokenizer.from_pretrained(options.models[0])
        for folder in options.models[1:]:
            if AutoTokenizer.from_pretrained(folder).get_vocab() != tokenizer.get_vocab():
                raise ValueError(f"{folder} and {options.models[0]} have different vocabularies. Train them with one.")
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        dtype = torch.bfloat16 if device and device.type == "cuda" else torch.float32
        models = [
            AutoModelForSeq2SeqLM.from_pretrained(path, dtype=dtype).to(device).eval() for path in options.models
        ]
        check_ensemble(models)
        sources = [text.strip() for path in options.sources for text in read_lines(path) if text.strip()]
        settings = {name: getattr(options, name) for name in ("num_beams", "max_new_tokens", "length_penalty")}
        rows = generate_texts(models, tokenizer, list(dict.fromkeys(sources)), options.batch_size, **settings)
        lines = [json.dumps({"source": source, "target": text}, ensure_ascii=False) for source, text in rows]
        write_atomically(options.output, "\n".join(lines) + "\n")
    except (OSError, ValueError) as error:
        print(f"distill: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(lines):,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
