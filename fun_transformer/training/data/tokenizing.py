"""TODO data/tokenizing."""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from ...tokenization_fun_transformer import tag_language
from ..recipe.arguments import DataArguments
from .caching import map_by_content
from .files import progress_bars
from .report import RowReport, choose_good


def languages_of(data_args: DataArguments, name: str) -> list[str]:
    """The target language of each corpus of a split, where sources name it; else nothing."""
    split = getattr(data_args, name)
    corpora = (split if split.is_named else data_args.train).corpora  # held-out rows are from train
    return [corpus.tgt_lang or "" for corpus in corpora] if data_args.tags_languages else []


def tokenize_splits(
    splits: datasets.DatasetDict, tokenizer: Any, data_args: DataArguments, encode: Any = None
) -> tuple[datasets.DatasetDict, RowReport]:
    """Adds `input_ids` and `labels`, both ending in </s>; refuses or drops rows over the limits.

    Args:
        splits: from `load_splits`.
        tokenizer: encodes sources, and targets given as `text_target`.
        data_args: the recipe's section `data`.
        encode: turns a batch of rows and the tokenizer into `input_ids` and `labels`; `encode_pairs` when None.

    Returns:
        The splits, and the report on the rows that `load_splits` kept.

    Raises:
        ValueError: over-long rows are refused.
    """
    tokenized, report = datasets.DatasetDict(), RowReport()
    limits = {"input_ids": data_args.max_source_tokens, "labels": data_args.max_target_tokens}
    for name, rows in splits.items():
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
        tokenized[name], dropped = choose_good(rows, problems, name, "tokenized", data_args.bad_rows)
        report.add(name, "tokenized", len(rows), dropped)
    return tokenized, report


def encode_rows(batch: dict[str, list], tokenizer: Any, encode: Callable, languages: list[str]) -> dict[str, list]:
    """Token ids of a batch; before a source stands the language that is wanted, where there are several."""
    if languages:
        corpora = batch.get("corpus") or [0] * len(batch["source"])
        tagged = [tag_language(text, languages[corpus]) for text, corpus in zip(batch["source"], corpora)]
        batch = {**batch, "source": tagged}
    return {"source": batch["source"], **encode(batch, tokenizer)}


def encode_pairs(batch: dict[str, list[str]], tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids of a batch of pairs."""
    encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
    return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}


def token_lengths(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Number of tokens in a column of token ids. (rows,)"""
    table = rows.with_format("arrow")
    return np.concatenate([pc.list_value_length(batch[column]).to_numpy() for batch in table.iter(10_000)])
