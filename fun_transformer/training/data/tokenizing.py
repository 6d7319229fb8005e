"""From texts to token ids: tokenize the rows of each split once, and refuse or drop those that are too long.

The ids are kept on disk and found again by the content of the rows and of the tokenizer (`caching.map_by_content`).
"""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from ...tokenization_fun_transformer import tag_language
from ..recipe.arguments import DataArguments, SplitArguments
from .caching import map_by_content
from .files import progress_bars
from .report import RowReport, check_rows, good_rows


def languages_of(data_args: DataArguments, name: str) -> list[str]:
    """Return the target language of each corpus of a split, where sources name it; else an empty list."""
    return [corpus.tgt_lang or "" for corpus in corpora_of(data_args, name)] if data_args.tags_languages else []


def corpora_of(data_args: DataArguments, name: str) -> list[SplitArguments]:
    """Return the corpora that the rows of a split are from; held-out rows are from train."""
    split = getattr(data_args, name)
    return (split if split.is_named else data_args.train).corpora


def tokenize_splits(
    splits: datasets.DatasetDict, tokenizer: Any, data_args: DataArguments, encode: Callable | None = None
) -> tuple[datasets.DatasetDict, RowReport]:
    """Add `input_ids` and `labels`, both ending in </s>, and refuse or drop the rows over the limits.

    Args:
        splits: From `load_splits`.
        tokenizer: Encodes sources, and targets given as `text_target`.
        data_args: The recipe's section `data`.
        encode: Turns a batch of rows and the tokenizer into `input_ids` and `labels`; `encode_pairs` when None.

    Returns:
        The splits, and the report on the rows that `load_splits` kept.

    Raises:
        ValueError: Over-long rows are refused.
    """
    tokenized, report = datasets.DatasetDict(), RowReport()
    limits = {"input_ids": data_args.max_source_tokens, "labels": data_args.max_target_tokens}
    for name, placed in splits.items():
        rows = placed.remove_columns("place")  # the same texts are tokenized once, wherever they are
        ids = datasets.List(datasets.Value("int32"))
        with progress_bars(shown=len(rows) >= 5000):
            rows = map_by_content(
                rows,
                encode_rows,
                tokenizer,
                datasets.Features({**rows.features, "input_ids": ids, "labels": ids}),
                f"Tokenizing {name}",
                encode=encode or encode_pairs,
                languages=languages_of(data_args, name),
            )
        problems = np.full(len(rows), "", dtype=object)
        for side, column in (("target", "labels"), ("source", "input_ids")):
            problems[token_lengths(rows, column) > limits[column]] = f"{side} has more than {limits[column]} tokens"
        corpora = [str(corpus) for corpus in corpora_of(data_args, name)]
        dropped = check_rows(placed, problems, name, corpora, data_args.bad_rows)
        tokenized[name] = good_rows(rows, problems)
        report.add(name, "tokenized", len(rows), dropped)
    return tokenized, report


def encode_rows(batch: dict[str, list], tokenizer: Any, encode: Callable, languages: list[str]) -> dict[str, list]:
    """Encode a batch of rows; where there are several languages, a source begins with the one that is wanted."""
    if languages:
        corpora = batch.get("corpus") or [0] * len(batch["source"])
        tagged = [tag_language(text, languages[corpus]) for text, corpus in zip(batch["source"], corpora)]
        batch = {**batch, "source": tagged}
    return {"source": batch["source"], **encode(batch, tokenizer)}


def encode_pairs(batch: dict[str, list[str]], tokenizer: Any) -> dict[str, list[list[int]]]:
    """Encode a batch of pairs as `input_ids` and `labels`."""
    encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
    return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}


def token_lengths(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Return the number of tokens of each row in a column of token ids: (rows,)."""
    table = rows.with_format("arrow")
    return np.concatenate([pc.list_value_length(batch[column]).to_numpy() for batch in table.iter(10_000)])
