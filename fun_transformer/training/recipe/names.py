"""The dotted names of all arguments ("training.max_steps"): known ones, old ones, and what to say of the others."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple, get_type_hints

from transformers.utils import logging

from .arguments import AUTO, RunArguments
from .model_config import CONFIGS

logger = logging.get_logger(__name__)

# The names of version 0.1; they are read in this version, and no longer in the next.
RENAMED = {
    f"training.{old}": f"training.{new}"
    for old, new in {
        "eval_every": "eval_steps",
        "save_every": "save_steps",
        "log_every": "logging_steps",
        "keep_checkpoints": "save_total_limit",
        "accumulation_steps": "gradient_accumulation_steps",
        "max_epochs": "num_train_epochs",
        "best_metric": "metric_for_best_model",
        "trackers": "report_to",
    }.items()
}
KERNEL = "training.attn_implementation"  # of which version 0.1 wrote null where it chose


OF_MODEL = ("config", "model_type", "path", "revision")  # not fields of a config
LONGEST_VALUE = 200  # characters of a value or name that an error shows


def shown(value: Any) -> str:
    """Return a value as an error shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        text = "a number of very many digits"
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" with the nearest known name; an empty text where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


class Argument(NamedTuple):
    """What is known of a dotted name."""

    kind: Any  # its type
    field: dataclasses.Field | None  # None for those of the model, which its config checks


def known_arguments(section: type = RunArguments, prefix: str = "") -> dict[str, Argument]:
    """Return all dotted names with their types and fields, in the order of the dataclasses."""
    known: dict[str, Argument] = {}
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        name, kind = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(kind):
            known |= known_arguments(kind, name + ".")  # type: ignore[arg-type]
        elif name == "model":
            known |= {f"model.{option}": Argument(str | None, None) for option in OF_MODEL}
            known["model.trust_remote_code"] = Argument(bool, None)
            for config_class in CONFIGS.values():
                known |= {f"model.{option.name}": Argument(Any, None) for option in dataclasses.fields(config_class)}
        elif name != "recipe":
            known[name] = Argument(kind, item)
    return known


def unknown_argument(name: str, known: Iterable[str]) -> ValueError:
    """Return the error for a name that does not exist, with the nearest one that does."""
    names, name = list(known), name[:LONGEST_VALUE]
    sections = {name.rpartition(".")[0] for name in names} - {""}
    if name in sections:
        inside = next(other for other in names if other.startswith(name + "."))
        return ValueError(f"{name} is a section. Give one of its names, such as {inside}.")
    last = name.rpartition(".")[2]
    elsewhere = [other for other in names if other.rpartition(".")[2] == last]  # learning_rate: training.learning_rate
    near = elsewhere or difflib.get_close_matches(name, [*names, *sections], n=1, cutoff=0.7)
    hint = f"Did you mean {near[0]}?" if near else "--help lists all names."
    return ValueError(f"{name} is not known. {hint}")


def flatten(section: Any, known: dict[str, Argument], prefix: str = "") -> dict[str, Any]:
    """Return nested sections of a recipe as dotted names; old names stay.

    Raises:
        ValueError: A name is not known, or a section holds a single value.
    """
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{prefix[:-1] or 'The recipe'} is a section of `name: value` lines, got {shown(section)}.")
    flat: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        if name in known or name in RENAMED:
            flat[name] = value
        elif isinstance(value, list) and f"{name}.mix" in known:  # several corpora
            flat[f"{name}.mix"] = value
        elif any(other.startswith(name + ".") for other in known):
            flat |= flatten(value, known, name + ".")
        else:
            raise unknown_argument(name, known)
    return flat


def replace_old_names(flat: dict[str, Any], place: str, warns: bool = True) -> dict[str, Any]:
    """Return the values under the names of this version, and warn once of all old ones.

    Args:
        flat: Values by dotted name.
        place: Where they were read, for the notice.
        warns: Whether to give it.

    Raises:
        ValueError: An argument has both its old and its new name.
    """
    notices = []
    for old in flat.keys() & RENAMED.keys():
        if RENAMED[old] in flat:
            raise ValueError(f"{place}: {old} is the old name of {RENAMED[old]}. Give only the new one.")
        notices.append(f"{old} is now {RENAMED[old]}")
    new = {RENAMED.get(name, name): value for name, value in flat.items()}
    if KERNEL in new and new[KERNEL] is None:
        new[KERNEL] = AUTO
        notices.append(f"{KERNEL}: null is now {AUTO}")
    if notices and warns:
        logger.warning_once(f"{place}: {', '.join(sorted(notices))}. The old names are read in this version only.")
    return new
