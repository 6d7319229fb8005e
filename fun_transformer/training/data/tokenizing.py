"""From texts to token ids: tokenize the rows of each split once, and refuse or drop those that are too long.

The ids are kept on disk and found again by the content of the rows and of the tokenizer (`caching.map_by_content`).
"""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from ...tokenization_fun_transformer import tag_language
from ..recipe.arguments import DataArguments
from .caching import map_by_content
from .features import tag_source, unknown_tag
from .files import progress_bars
from .languages import Pair, corpora_of, language_pairs, set_languages
from .report import RowReport, check_rows, good_rows


def languages_of(data_args: DataArguments, name: str) -> list[str]:
    """Return the target language of each corpus of a split, where sources name it; else an empty list."""
    return [corpus.tgt_lang or "" for corpus in corpora_of(data_args, name)] if data_args.tags_languages else []


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
        pairs = language_pairs(tokenizer, data_args, name)
        ids = datasets.List(datasets.Value("int32"))
        with progress_bars(shown=len(rows) >= 5000):
            rows = map_by_content(
                rows,
                encode_rows,
                tokenizer,
                datasets.Features({**rows.features, "input_ids": ids, "labels": ids}),
                f"Tokenizing {name}",
                encode=encode or encode_pairs,
                languages=[] if pairs else languages_of(data_args, name),
                pairs=pairs,
                prefix=data_args.source_prefix,
            )
        problems = np.full(len(rows), "", dtype=object)
        for side, column in (("target", "labels"), ("source", "input_ids")):
            problems[token_lengths(rows, column) > limits[column]] = f"{side} has more than {limits[column]} tokens"
        if "tags" in placed.column_names:
            known = tokenizer.get_vocab()
            unknown = np.array([unknown_tag(tags, known) for tags in placed["tags"]], dtype=object)
            problems[problems == ""] = unknown[problems == ""]
        corpora = [str(corpus) for corpus in corpora_of(data_args, name)]
        dropped = check_rows(placed, problems, name, corpora, data_args.bad_rows)
        tokenized[name] = good_rows(rows, problems)
        report.add(name, "tokenized", len(rows), dropped)
    return tokenized, report


def encode_rows(
    batch: dict[str, list],
    tokenizer: Any,
    encode: Callable,
    languages: list[str],
    pairs: list[Pair],
    prefix: str,
) -> dict[str, list]:
    """Encode a batch of rows; a source begins with the wanted language, the recipe's prefix and the row's tags.

    Args:
        batch: With `source` and `target`; `corpus` where there are several.
        tokenizer: For `encode`.
        encode: As in `tokenize_splits`.
        languages: Of each corpus, where a source begins with the language that is wanted.
        pairs: Source and target language of each corpus, where the tokenizer frames texts by them.
        prefix: Of all sources.
    """
    sources, corpora = batch["source"], batch.get("corpus") or [0] * len(batch["source"])
    if "tags" in batch:
        sources = [tag_source(text, tags) for text, tags in zip(sources, batch["tags"], strict=True)]
    if prefix:
        sources = [prefix + text for text in sources]
    if languages:
        sources = [tag_language(text, languages[corpus]) for text, corpus in zip(sources, corpora)]
    return {"source": sources, **encode_texts({**batch, "source": sources}, tokenizer, encode, pairs)}


def encode_texts(batch: dict[str, list], tokenizer: Any, encode: Callable, pairs: list[Pair]) -> dict[str, list[Any]]:
    """Encode a batch of rows whose sources are complete; see `encode_rows`."""
    if not pairs:
        return encode(batch, tokenizer)
    corpora = batch.get("corpus") or [0] * len(batch["source"])
    return encode_by_language(batch, tokenizer, encode, [pairs[corpus] for corpus in corpora])


def encode_by_language(
    batch: dict[str, list], tokenizer: Any, encode: Callable, pairs: list[Pair]
) -> dict[str, list[Any]]:
    """Encode the rows of each pair of languages together; the results are in the order of the batch."""
    encoded: dict[str, list[Any]] = {}
    for pair in sorted(set(pairs)):
        chosen = [row for row, other in enumerate(pairs) if other == pair]
        set_languages(tokenizer, pair)
        part = encode({name: [values[row] for row in chosen] for name, values in batch.items()}, tokenizer)
        for name, values in part.items():
            column = encoded.setdefault(name, [None] * len(pairs))
            for row, value in zip(chosen, values, strict=True):
                column[row] = value
    return encoded


def encode_pairs(batch: dict[str, list[str]], tokenizer: Any) -> dict[str, list[list[int]]]:
    """Encode a batch of pairs as `input_ids` and `labels`."""
    encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
    return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}


def token_lengths(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Return the number of tokens of each row in a column of token ids: (rows,)."""
    lengths = pc.list_value_length(rows.data.column(column)).to_numpy()
    return lengths if rows._indices is None else lengths[rows._indices.column(0).to_numpy()]
