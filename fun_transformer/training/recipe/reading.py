"""All arguments of a training run: a YAML recipe, then dotted overrides, read into dataclasses and checked.

    python -m training.train hub_configs/NAME/recipe.yaml --training.max_steps 60 --overwrite

A recipe is flattened to dotted names ("training.max_steps"), the command line is laid over it, and each value is
converted to the type of the dataclass field of that name. Nothing is guessed and nothing is ignored: a name that is
not known, or a value that does not fit, is refused before any data is read.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .arguments import BY_CORPUS_SIZE, CONFIG_FILES, SPLITS, GenerationArguments, RunArguments
from .checks import check_together, drop_targets
from .yaml12 import read_yaml


def known_arguments(section: type = RunArguments, prefix: str = "") -> dict[str, tuple[Any, dataclasses.Field | None]]:
    """All dotted names with their types and fields, in the order of the dataclasses."""
    known: dict[str, tuple[Any, dataclasses.Field | None]] = {}
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        name, kind = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(kind):
            known |= known_arguments(kind, name + ".")  # type: ignore[arg-type]
        elif name == "model":
            from fun_transformer import FunTransformerConfig, Seq2SeqRNNConfig

            known |= {"model.config": (str | None, None), "model.model_type": (str | None, None)}
            for config_class in (FunTransformerConfig, Seq2SeqRNNConfig):
                known |= {f"model.{option.name}": (Any, None) for option in dataclasses.fields(config_class)}
        elif name not in ("recipe", "given"):
            known[name] = (kind, item)
    return known


def unknown_argument(name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that does not exist, with the nearest one that does."""
    names = list(known)
    sections = {name.rpartition(".")[0] for name in names} - {""}
    if name in sections:
        inside = next(other for other in names if other.startswith(name + "."))
        return ValueError(f"{name} is a section. Give one of its names, such as {inside}.")
    last = name.rpartition(".")[2]
    elsewhere = [other for other in names if other.rpartition(".")[2] == last]  # learning_rate: training.learning_rate
    near = elsewhere or difflib.get_close_matches(name, [*names, *sections], n=1, cutoff=0.7)
    hint = f"Did you mean {near[0]}?" if near else "--help lists all names."
    return ValueError(f"{name} is not known. {hint}")


def flatten(section: Any, known: dict, prefix: str = "") -> dict[str, Any]:
    """Nested sections of a recipe as dotted names.

    Raises:
        ValueError: a name is not known, or a section holds a single value.
    """
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{prefix[:-1] or 'The recipe'} is a section of `name: value` lines, got {section!r}.")
    flat = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        if name in known:
            flat[name] = value
        elif isinstance(value, list) and f"{name}.mix" in known:  # several corpora
            flat[f"{name}.mix"] = value
        elif any(other.startswith(name + ".") for other in known):
            flat |= flatten(value, known, name + ".")
        else:
            raise unknown_argument(name, known)
    return flat


def convert(value: Any, kind: Any, name: str) -> Any:
    """`value` as the type of a field.

    Raises:
        ValueError: the value has another type, or is none of a Literal's.
    """
    if kind is Any:
        return value
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        near = difflib.get_close_matches(str(value), get_args(kind), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}.{hint}")
    if get_origin(kind) is list:
        of = get_args(kind)[0]
        if isinstance(value, bool) and get_origin(of) is Literal:  # --data.clean true
            return list(get_args(of)) if value else []
        items = value.split(",") if isinstance(value, str) else value  # --generation.metrics bleu,chrf
        if not isinstance(items, list):
            raise ValueError(f"{name} must be a list, got {value!r}.")
        if dataclasses.is_dataclass(of):
            known = known_arguments(of)  # type: ignore[arg-type]
            places = [f"{name}[{place}]" for place in range(len(items))]
            return [build_named(of, flatten(item, known), place) for item, place in zip(items, places)]  # type: ignore
        return [convert(i.strip() if isinstance(i, str) else i, get_args(kind)[0], name) for i in items]
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        kinds = [option for option in get_args(kind) if option is not NoneType]
        matching = [option for option in kinds if isinstance(option, type) and isinstance(value, option)]
        return convert(value, (matching or kinds)[0], name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():  # 1e5 steps
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        hint = " Put it in quotes." if kind is str and value is not None else ""
        raise ValueError(f"{name} must be {words[kind]}, got {value!r}.{hint}")
    return value


def check_limits(value: Any, limits: dict[str, float], name: str) -> None:
    """Refuses a number outside its field's limits.

    Raises:
        ValueError: naming the limit.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}.")
    rules = {
        "minimum": ("at least", lambda limit: value >= limit),
        "maximum": ("at most", lambda limit: value <= limit),
        "above": ("greater than", lambda limit: value > limit),
        "below": ("less than", lambda limit: value < limit),
    }
    for rule, limit in limits.items():
        words, holds = rules[rule]
        if value is not None and not holds(limit):
            raise ValueError(f"{name} must be {words} {limit:g}, got {value}.")


def build_named(section: type, flat: dict[str, Any], place: str) -> Any:
    """An item of a list of sections; `place` says in an error which.

    Raises:
        ValueError: a value does not fit.
    """
    try:
        return build(section, flat)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def build(section: type, flat: dict[str, Any], prefix: str = "") -> Any:
    """The dataclass `section` with the given values; the others keep their defaults."""
    values: dict[str, Any] = {}
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        name, kind = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(kind):
            values[item.name] = build(kind, flat, name + ".")  # type: ignore[arg-type]
        elif name == "model":
            values["model"] = {key.removeprefix("model."): flat[key] for key in flat if key.startswith("model.")}
        elif name in flat:
            values[item.name] = convert(flat[name], kind, name)
            check_limits(values[item.name], item.metadata.get("limits", {}), name)
    return section(**values)


def read_recipe(path: str, known: dict) -> dict[str, Any]:
    """A recipe file as dotted names and values.

    Raises:
        ValueError: there is no such file, or it is not a recipe.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {path} cannot be read: {error}") from error
    return absolute_configs(flatten(read_yaml(text, path), known), Path(path).parent)


def read_command_line(argv: list[str], known: dict) -> tuple[str | None, dict[str, Any]]:
    """Splits the command line into the recipe's path and the overrides.

    Raises:
        ValueError: a name is not known or lacks its value, or a second recipe is named.
    """
    recipe, overrides, rest = None, {}, list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if recipe:
                raise ValueError(f"Two recipes are named: {recipe} and {word}. Give one; options begin with --.")
            if not word.endswith((".yaml", ".yml")):
                raise ValueError(
                    f"{word!r} stands alone: a recipe ends in .yaml, anything else is --section.name VALUE."
                )
            recipe = word
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")  # --dry-run
        if name not in known:
            raise unknown_argument(name, known)
        kind = known[name][0]
        if not equals:
            following = rest[0] if rest else "--"
            bare = following.startswith("--") or following.endswith((".yaml", ".yml"))
            if (name == "resume" and bare) or (kind is bool and following not in ("true", "false")):
                text = "true"
            elif following.startswith("--"):
                raise ValueError(f"--{name} needs a value: --{name} VALUE, or --{name}=VALUE if it begins with --.")
            else:
                text = rest.pop(0)
        overrides[name] = read_value(text, kind, name)
    return recipe, absolute_configs(overrides, Path.cwd())


def read_value(text: str, kind: Any, name: str) -> Any:
    """A word of the command line: text where the field takes text (so that `no` stays "no"), else YAML."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(option is str or get_origin(option) is Literal for option in options):
        return read_yaml(text, f"--{name}")
    return None if NoneType in options and text == "null" else text


def absolute_configs(flat: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Makes the paths of JSON config files independent of where they were written down."""
    found = {name: str((folder / flat[name]).resolve()) for name in CONFIG_FILES if isinstance(flat.get(name), str)}
    return flat | found


def read_generation_config(flat: dict[str, Any]) -> dict[str, Any]:
    """What the JSON file named by generation.config says of our generation arguments; other settings are not ours."""
    path = flat.get("generation.config")
    if path is None or not Path(path).is_file():  # a missing file is reported by check_together
        return {}
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    names = {option.name for option in dataclasses.fields(GenerationArguments)} - {"config"}
    return {f"generation.{name}": value for name, value in settings.items() if name in names}


def replace_origin(recipe: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Drops the recipe's `dataset` of a split for which the command line names files, and the other way round."""
    for split in SPLITS:
        files = {f"data.{split}.source", f"data.{split}.target"}
        dataset = {f"data.{split}.{name}" for name in ("dataset", "config", "split", "source_column", "target_column")}
        mix = {f"data.{split}.mix"}
        dropped: set[str] = set()
        if overrides.keys() & files:
            dropped |= dataset | mix
        if f"data.{split}.dataset" in overrides:
            dropped |= files | mix
        if overrides.keys() & mix:
            dropped |= files | dataset
        recipe = {name: value for name, value in recipe.items() if name not in dropped}
    return recipe


def help_text() -> str:
    """What `--help` prints: each argument with its meaning, values and default."""
    lines = ["usage: training.train [RECIPE.yaml] [--section.name VALUE ...]", ""]
    for name, (kind, item) in known_arguments().items():
        if item is None:
            continue
        options = [option for option in (kind, *get_args(kind)) if get_origin(option) is Literal]
        values = f" ({' | '.join(get_args(options[0]))})" if options else ""
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore
        shown = "by size of corpus" if name in BY_CORPUS_SIZE else json.dumps(default, ensure_ascii=False)
        lines.append(f"  --{name}{values}\n      {item.metadata['help']} [{shown}]")
    lines.append("  --model.config FILE.json, --model.NAME VALUE\n      a model configuration, and any of its fields:")
    lines.append("      " + ", ".join(name.removeprefix("model.") for name in known_arguments() if "model." in name))
    return "\n".join(lines)


def parse_arguments(argv: list[str]) -> RunArguments:
    """Reads `[RECIPE.yaml] [--section.name VALUE ...]`; the command line wins over the recipe.

    Args:
        argv: the words of the command line, without the program's name.

    Returns:
        The checked arguments.

    Raises:
        ValueError: a name is not known or a value does not fit.
    """
    if "--help" in argv or "-h" in argv:
        print(help_text())
        raise SystemExit(0)
    known = known_arguments()
    recipe, overrides = read_command_line(argv, known)
    flat = replace_origin(read_recipe(recipe, known), overrides) if recipe else {}
    flat |= overrides
    arguments = build(RunArguments, read_generation_config(flat) | flat)
    arguments.recipe, arguments.given = recipe, frozenset(flat)
    if arguments.objective in ("masked_lm", "causal_lm"):
        drop_targets(arguments)
    check_together(arguments)
    return arguments
