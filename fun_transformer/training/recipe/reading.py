"""Reading a recipe: YAML, then dotted overrides of the command line, into dataclasses that are checked.

    fun-transformer train hub_configs/NAME/recipe.yaml --training.max_steps 60 --overwrite

A recipe is flattened to dotted names ("training.max_steps"), the command line replaces some of them, and each value
is converted to the type of the dataclass field of that name. Nothing is guessed and nothing is ignored: a name that
is not known, or a value that does not fit, is refused before any data is read.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ...hub import shipped_recipe
from ..tables import METRICS, OBJECTIVES
from .arguments import AUTO, SPLITS, GenerationArguments, RunArguments, TrainingArguments
from .checks import check, convert_fields
from .defaults import LIMITS
from .model_config import read_json
from .names import RENAMED, Argument, flatten, known_arguments, replace_old_names, unknown_argument
from .yaml12 import read_yaml

FILES = ("model.config", "generation.config")  # relative to the recipe, or typed in the working directory
COURSE = ("batch_tokens", "gradient_accumulation_steps", "learning_rate", "schedule", "warmup_steps", "average")
RECIPE_ENDINGS = (".yaml", ".yml")


def build(section: type, flat: dict[str, Any], prefix: str = "") -> Any:
    """Return the dataclass `section` with the given values; the others keep their defaults."""
    values: dict[str, Any] = {}
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        name, kind = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(kind):
            values[item.name] = build(kind, flat, name + ".")  # type: ignore[arg-type]
        elif name == "model":
            values["model"] = {key.removeprefix("model."): flat[key] for key in flat if key.startswith("model.")}
        elif name in flat:
            values[item.name] = flat[name]
    return section(**values)


def read_recipe(path: str, known: dict[str, Argument], warns: bool = True) -> dict[str, Any]:
    """Return a recipe file as dotted names and values.

    Args:
        path: Of the file.
        known: All arguments.
        warns: Whether old names are worth a notice: not where a run reads what it has written.

    Raises:
        ValueError: There is no such file, or it is not a recipe.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {path} cannot be read: {error}") from error
    flat = replace_old_names(flatten(read_yaml(text, path), known), path, warns)
    return absolute_files(flat, Path(path).parent)


def read_command_line(argv: list[str], known: dict[str, Argument]) -> tuple[str | None, dict[str, Any]]:
    """Return the recipe's path and the overrides of a command line.

    Raises:
        ValueError: A name is not known or lacks its value, or a second recipe is named.
    """
    recipe, rest = None, list(argv)
    overrides: dict[str, Any] = {}
    plugins: list[str] = []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if recipe:
                raise ValueError(f"Two recipes are named: {recipe} and {word}. Give one; options begin with --.")
            recipe = word if word.endswith(RECIPE_ENDINGS) else str(shipped_recipe(word))
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")  # --dry-run
        name = {"plugin": "plugins"}.get(name, name)
        if RENAMED.get(name, name) not in known:
            raise unknown_argument(name, known)
        kind = known[RENAMED.get(name, name)].kind
        if not equals:
            text = take_value(name, kind, rest)
        if name == "plugins":  # may be repeated
            plugins += [path.strip() for path in text.split(",")]
        else:
            overrides[name] = read_value(text, kind, name)
    if plugins:
        overrides["plugins"] = plugins
    return recipe, absolute_files(replace_old_names(overrides, "The command line"), Path.cwd())


def take_value(name: str, kind: Any, rest: list[str]) -> str:
    """Take the value of an option from the words that follow it.

    Raises:
        ValueError: There is none.
    """
    following = rest[0] if rest else "--"
    bare = following.startswith("--") or following.endswith(RECIPE_ENDINGS)
    if (name == "resume" and bare) or (kind is bool and following not in ("true", "false")):
        return "true"
    if following.startswith("--"):
        raise ValueError(f"--{name} needs a value: --{name} VALUE, or --{name}=VALUE if it begins with --.")
    return rest.pop(0)


def read_value(text: str, kind: Any, name: str) -> Any:
    """Return a word of the command line: text where the field takes text (so that `no` stays "no"), else YAML."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(option is str or get_origin(option) is Literal for option in options):
        return read_yaml(text, f"--{name}")
    return None if NoneType in options and text == "null" else text


def absolute_files(flat: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with paths of files that do not depend on where they were written down."""
    found: dict[str, Any] = {
        name: str((folder / flat[name]).resolve()) for name in FILES if isinstance(flat.get(name), str)
    }
    base = flat.get("model.path")
    if isinstance(base, str) and (folder / base).is_dir():  # else a name of the Hub
        found["model.path"] = str((folder / base).resolve())
    plugins = flat.get("plugins")
    if isinstance(plugins, str):
        plugins = [path.strip() for path in plugins.split(",")]
    if isinstance(plugins, list):  # an item of another type is refused by `check`
        found["plugins"] = [str((folder / path).resolve()) if isinstance(path, str) else path for path in plugins]
    return flat | found


def read_generation_config(flat: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON file named by generation.config says of our generation arguments."""
    path = flat.get("generation.config")
    if not isinstance(path, str) or not Path(path).is_file():  # a missing file is reported by `check`
        return {}
    settings = read_json(path, "generation.config")
    names = {option.name for option in dataclasses.fields(GenerationArguments)} - {"config"}
    return {f"generation.{name}": value for name, value in settings.items() if name in names}


def replace_origin(recipe: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe without what the command line names another origin of.

    That is the `dataset` of a split for which it names files, or the reverse; and model and tokenizer where it names a
    trained model: `RUN/recipe.yaml --model.path RUN` goes on with both.
    """
    if overrides.get("model.path") is not None:
        own = ("model.", "tokenizer.", "training.init_from", "training.source_vectors", "training.target_vectors")
        recipe = {name: value for name, value in recipe.items() if not name.startswith(own)}
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


def changed_arguments(old_file: Path, new: RunArguments) -> dict[str, tuple[Any, Any]]:
    """Return the arguments that differ from those of a recipe file: name -> (old, new).

    What the file does not have, as an older version wrote it, is no change; nor is what it left to be chosen.

    Raises:
        ValueError: The recipe cannot be read.
    """
    flat = read_recipe(str(old_file), known_arguments(), warns=False)
    before, after = flat_values(convert_fields(build(RunArguments, flat))), flat_values(new)
    names = [name for name in after if name in flat or name.startswith("model.")]
    names += [name for name in before if name not in after]
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: (old, now) for name, (old, now) in pairs.items() if old not in (now, AUTO)}


def keep_choices(arguments: RunArguments, output_dir: Path) -> RunArguments:
    """Return the recipe of a resumed run with what the texts decided at its start, by whatever version that was."""
    path = output_dir / "recipe.yaml"
    if not path.is_file():
        return arguments
    flat = read_recipe(str(path), known_arguments(), warns=False)
    begun = convert_fields(build(RunArguments, flat))
    tokenizer, model, training = arguments.tokenizer, arguments.model, arguments.training
    if tokenizer.type == AUTO:
        tokenizer = keep_open(tokenizer, begun.tokenizer, ("type", "min_frequency"))
        names = ("target_type", "vocab_size", "target_vocab_size")
        tokenizer = dataclasses.replace(tokenizer, **{name: getattr(begun.tokenizer, name) for name in names})
        if tokenizer.type in ("char", "word"):  # chosen for words, from whichever table that version had
            named = {name: value for name, value in model.items() if value != AUTO}
            model, training = begun.model | named, keep_course(training, begun.training)
    open_names = ("metrics", "num_beams", "max_new_tokens", "length_penalty")
    generation = keep_open(arguments.generation, begun.generation, open_names)
    return dataclasses.replace(arguments, tokenizer=tokenizer, model=model, training=training, generation=generation)


def keep_open(now: Any, begun: Any, names: Iterable[str]) -> Any:
    """Return a section of the recipe with values of another one in place of "auto", for the fields that are named."""
    return dataclasses.replace(now, **{name: getattr(begun, name) for name in names if getattr(now, name) == AUTO})


def keep_course(now: TrainingArguments, begun: TrainingArguments) -> TrainingArguments:
    """Return a section `training` with the batches and learning rates of another one in place of "auto".

    Its limits are kept where no other one is named, as then only that holds.
    """
    is_limited = any(getattr(now, name) not in (AUTO, None) for name in LIMITS)
    names = COURSE if is_limited else (*COURSE, *LIMITS, "patience")
    return keep_open(now, begun, names)


def flat_values(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return all values of a recipe by dotted name."""
    items = section if isinstance(section, dict) else vars(section)
    flat: dict[str, Any] = {}
    for name, value in items.items():
        if dataclasses.is_dataclass(value) or prefix + name == "model":
            flat |= flat_values(value, f"{prefix}{name}.")
        elif name != "recipe":
            flat[prefix + name] = value
    return flat


def list_options(name: str, kind: Any) -> list[str]:
    """Return the words that an argument can be; none where it can be anything of its type."""
    tables = {
        "objective": list(OBJECTIVES),
        "generation.metrics": [metric for metric in METRICS if METRICS[metric].compares_texts],
    }
    literals = [option for option in (kind, *get_args(kind)) if get_origin(option) is Literal]
    return tables.get(name, list(get_args(literals[0])) if literals else [])


def fields_of_model() -> list[str]:
    """Return the names of the fields of the configs, and of what a recipe can say beside them."""
    names = (name for name, argument in known_arguments().items() if argument.field is None)
    return [name for name in names if name.removeprefix("model.") not in ("path", "revision", "trust_remote_code")]


def help_text() -> str:
    """Return what `--help` prints: each argument with its meaning, values and default."""
    lines = ["usage: fun-transformer train [RECIPE.yaml | NAME] [--section.name VALUE ...]", ""]
    lines += ["A NAME is that of a shipped recipe, such as g2p-en. auto: we choose; null: off.", ""]
    for name, (kind, item) in known_arguments().items():
        if item is None:
            continue
        values = f" ({' | '.join(options)})" if (options := list_options(name, kind)) else ""
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore
        auto = item.metadata.get("auto")
        shown = f"auto: {auto}" if auto else json.dumps(default, ensure_ascii=False)
        lines.append(f"  --{name}{values}\n      {item.metadata['help']} [{shown}]")
    lines.append("  --model.path NAME_OR_FOLDER, --model.revision NAME, --model.trust_remote_code")
    lines.append("      start from a trained model of any family with its tokenizer: a folder, a run, or a Hub name;")
    lines.append("      beside it only --model.dropout and --model.label_smoothing [null: a fresh model]")
    lines.append("  --model.config FILE.json, --model.NAME VALUE\n      a model configuration, and any of its fields;")
    lines.append("      its sizes and dropout [auto: by the number of training pairs, where no size is named]:")
    lines.append("      " + ", ".join(name.removeprefix("model.") for name in fields_of_model()))
    return "\n".join(lines)


def parse_arguments(argv: list[str]) -> RunArguments:
    """Read `[RECIPE.yaml | NAME] [--section.name VALUE ...]`; the command line wins over the recipe.

    Args:
        argv: The words of the command line, without the program's name.

    Returns:
        The checked arguments.

    Raises:
        ValueError: A name is not known or a value does not fit.
    """
    if "--help" in argv or "-h" in argv:
        print(help_text())
        raise SystemExit(0)
    known = known_arguments()
    recipe, overrides = read_command_line(argv, known)
    flat = replace_origin(read_recipe(recipe, known), overrides) if recipe else {}
    flat |= overrides
    arguments = build(RunArguments, read_generation_config(flat) | flat)
    arguments.recipe = recipe
    return check(arguments)
