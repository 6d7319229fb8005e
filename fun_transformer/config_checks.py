"""What the configurations of all model families check in the same way.

transformers accepts any field: a misspelt one would be kept beside the default of the one that was meant.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedConfig


def refuse_near_misses(config: PreTrainedConfig, names: Iterable[str]) -> None:
    """Refuse fields whose names are nearly, but not quite, those of a config.

    Args:
        config: Whose own fields are known.
        names: Fields that were given and that the config does not have.

    Raises:
        ValueError: Naming the field that was probably meant.
    """
    known = [name for name in config.__dataclass_fields__ if not name.startswith("_")]
    for name in names:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if nearest and not hasattr(type(config), name):
            raise ValueError(f"{name} is not a field of {type(config).__name__}. Did you mean {nearest[0]}?")


def check_known(field: str, name: str, table: dict[str, Any]) -> None:
    """Refuse a name that is not in an open table, such as `POSITIONS` or `MIXERS`.

    Args:
        field: The config's field, for the message.
        name: Its value.
        table: Known names; user code may add some.

    Raises:
        ValueError: Naming the known names, and the nearest one.
    """
    if name in table:
        return
    nearest = difflib.get_close_matches(name, table, n=1)
    meant = f"Did you mean {nearest[0]}? " if nearest else ""
    raise ValueError(
        f"{field}={name} is not known. {meant}Choose one of {', '.join(table)}, or first import the code that adds it."
    )


def check_positive(config: PreTrainedConfig, *names: str) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: Naming the field and its value.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1.")


def check_probabilities(config: PreTrainedConfig, *names: str) -> None:
    """Refuse dropout rates and label smoothing that are not in [0, 1).

    Raises:
        ValueError: Naming the field and its value.
    """
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 0 and below 1.")


def check_vocabularies(config: PreTrainedConfig) -> None:
    """Refuse one embedding for two vocabularies of different sizes.

    Raises:
        ValueError: Saying how to fix it.
    """
    if config.share_encoder_decoder_embeddings and config.decoder_vocab_size != config.vocab_size:
        raise ValueError(
            f"vocab_size={config.vocab_size} and decoder_vocab_size={config.decoder_vocab_size} differ, so source and "
            "target cannot share one embedding. Set share_encoder_decoder_embeddings=False or make them equal."
        )
