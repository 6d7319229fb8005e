"""What is known of a source beside its text, as tokens before it: "<domain:news> <case:ACC> Haus".

`feature_columns` names columns of the corpus; each value becomes a special token of its own, which a model learns like
a word (Sennrich et al. 2016, arXiv:1601.06081, put politeness there; for inflection they are the grammatical tags). A
value of several parts, a list or a text with ; or | in it as in UniMorph, becomes several tokens: V;PST is <tag:V>
<tag:PST>.
"""

import re
from typing import Any

import datasets
from tokenizers import AddedToken

MOST_TAGS = 2_000  # of a corpus: each needs many rows to be learned
NOT_IN_TAGS = re.compile(r"[<>]")


def feature_tags(column: str, value: Any) -> tuple[list[str], str]:
    """Return the tags that a value of a column becomes, and what is wrong with the value, "" if nothing.

    Args:
        column: Its name, which begins each tag.
        value: A text, a number, true or false, or a list of such.
    """
    values = value if isinstance(value, list) else [value]
    parts: list[str] = []
    for item in values:
        if not isinstance(item, str | int | float):
            return [], f"feature {column} is {'empty' if item is None else 'not text'}"
        parts += [re.sub(r"\s+", "_", part.strip()) for part in re.split("[;|]", str(item)) if part.strip()]
    if not parts:
        return [], f"feature {column} is empty"
    if any(NOT_IN_TAGS.search(part) for part in parts):
        return [], f"feature {column} has < or > in it"
    return [f"<{column}:{part}>" for part in parts], ""


def tag_source(text: str, tags: list[str]) -> str:
    """Return a source with its tags before it."""
    return " ".join([*tags, text])


def known_tags(rows: datasets.Dataset) -> list[str]:
    """List the tags of all rows, sorted; none where no features are named.

    Raises:
        ValueError: There are too many to be learned.
    """
    if "tags" not in rows.column_names:
        return []
    found: set[str] = set()
    for batch in rows.select_columns(["tags"]).iter(10_000):
        found.update(tag for tags in batch["tags"] for tag in tags)
    if len(found) > MOST_TAGS:
        raise ValueError(
            f"data.train.feature_columns: {len(found):,} different values (at most {MOST_TAGS:,}), such as "
            f"{min(found)}. Name columns of categories, not of numbers or texts."
        )
    return sorted(found)


def feature_sets(rows: datasets.Dataset) -> set[tuple[str, ...]]:
    """Return which features rows have, in the order of their tags: one set, or several where corpora differ."""
    if "tags" not in rows.column_names:
        return {()}
    batches = rows.select_columns(["tags"]).iter(10_000)
    return {tuple(dict.fromkeys(map(feature_of, tags))) for batch in batches for tags in batch["tags"]}


def feature_of(tag: str) -> str:
    """Return the feature that a tag is of."""
    return tag[1:-1].partition(":")[0]


def check_features(wanted: set[tuple[str, ...]], rows: datasets.Dataset, name: str) -> None:
    """Refuse a split whose sources have other features than those of training.

    Args:
        wanted: The `feature_sets` of training; rows with the features of all of them are right, too.
        rows: Of the split.
        name: Of the split.

    Raises:
        ValueError: They have. What was recognised in one file may be missing in another.
    """
    allowed = {tuple(sorted(features)) for features in wanted}
    allowed.add(tuple(sorted({feature for features in wanted for feature in features})))
    for found in sorted(feature_sets(rows)):
        if tuple(sorted(found)) not in allowed:
            of_train = " or ".join(", ".join(features) or "none" for features in sorted(wanted))
            raise ValueError(
                f"data.{name} has other features before its sources, as tags, than data.train: {of_train} there, "
                f"{', '.join(found) or 'none'} here. Give both the same columns, and name them: feature_columns."
            )


def add_tags(tokenizer: Any, train: datasets.Dataset) -> None:
    """Make a special token of each tag of the training rows; those that the tokenizer has stay.

    Features that every row has are kept in the tokenizer's file: all sources of the model want them.

    Raises:
        ValueError: There are too many to be learned.
    """
    known = tokenizer.get_vocab()
    new = [tag for tag in known_tags(train) if tag not in known]
    if new:
        tokens = [AddedToken(tag, special=True, rstrip=True, normalized=False) for tag in new]
        tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    features = feature_sets(train)
    tokenizer.init_kwargs.pop("feature_columns", None)
    if len(features) == 1 and features != {()}:
        tokenizer.init_kwargs["feature_columns"] = [*features.pop()]


def unknown_tag(tags: list[str], known: dict[str, int]) -> str:
    """Say which of the tags of a row training has not seen, as a problem of the row; "" if it has seen all."""
    unseen = next((tag for tag in tags if tag not in known), None)
    return f"feature {unseen[1:-1].replace(':', ' is ', 1)}, which training never saw" if unseen else ""


def describe_tags(rows: datasets.Dataset) -> str:
    """Say with which tags a source begins, for those who use the model; "" where there are none."""
    names: dict[str, list[str]] = {}
    for tag in known_tags(rows):
        name, _, value = tag[1:-1].partition(":")
        names.setdefault(name, []).append(value)
    shown = [f"{name} ({', '.join(values[:8])}{' ...' * (len(values) > 8)})" for name, values in names.items()]
    if not shown:
        return ""
    example = tag_source("TEXT", next(iter(rows.select_columns(["tags"])))["tags"])
    return f"`{example}`; the tags are {' and '.join(shown)}"
