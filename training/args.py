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
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

Filter = Literal["duplicates", "identical", "ratio", "script", "control"]
Metric = Literal["bleu", "chrf", "per", "wer", "exact"]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "swanlab"]
SPLITS = ("train", "validation", "test")
# Where nobody says otherwise, training/defaults.py chooses these by the number of training pairs.
BY_CORPUS_SIZE = {
    "tokenizer.vocab_size",
    *(f"training.{name}" for name in ("batch_tokens", "accumulation_steps", "learning_rate", "warmup_steps")),
    *(f"training.{name}" for name in ("max_steps", "max_epochs", "patience", "eval_every", "save_every")),
}
CONFIG_FILES = ("model.config", "generation.config")  # relative to the recipe, or typed in the working directory


def arg(default: Any, help: str, **limits: float) -> Any:
    """A dataclass field with its meaning and its limits (`minimum`, `maximum`: included; `above`, `below`: not)."""
    return field(default=default, metadata={"help": help, "limits": limits})


@dataclass
class TokenizerArguments:
    """Which tokenizer: a finished one (`path`), or one trained on the training split."""

    path: str | None = arg(None, "folder or Hub name of a finished tokenizer; without it one is trained")
    type: Literal["bpe", "unigram", "char", "word"] = arg("bpe", "how text is cut into tokens")
    vocab_size: int = arg(8000, "size of the vocabulary, special tokens included (char, word: at most)", minimum=6)
    target_type: Literal["bpe", "unigram", "char", "word"] | None = arg(
        None, "how target text is cut; null: as the source, with one shared vocabulary"
    )
    target_vocab_size: int | None = arg(
        None, "size of a vocabulary of its own for the target; null: one for both sides", minimum=6
    )
    lowercase: Literal["none", "source", "both"] = arg("none", "which sides are lower-cased")
    max_rows: int = arg(1_000_000, "a larger training split is represented by so many rows, drawn by seed", minimum=1)
    min_frequency: int = arg(2, "a token seen less often in training does not enter the vocabulary", minimum=1)


@dataclass
class SplitArguments:
    """Where one split comes from: `dataset`, line-aligned text files `source` and `target`, or a list of such."""

    dataset: str | None = arg(
        None,
        "Hub name, builtin:cmudict, builtin:hsk, or a path (or pattern: *) of .jsonl, .json, .tsv, .csv, .parquet",
    )
    config: str | None = arg(None, "configuration of a Hub data set, such as a language pair")
    split: str | None = arg(None, "split of a Hub or built-in data set; null: the section's own name")
    source_column: str = arg("source", "column of the source text; dots reach inside: translation.zh")
    target_column: str = arg("target", "column of the target text; dots reach inside: translation.en")
    source: str | None = arg(None, "text file with one source sentence a line (plain, .gz or .xz)")
    target: str | None = arg(None, "text file whose lines translate those of `source`")
    src_lang: str | None = arg(None, "language of the sources, such as zh")
    tgt_lang: str | None = arg(
        None, "language of the targets; where those of train differ, each source begins with the one wanted: >>en<<"
    )
    weight: float = arg(1.0, "of a corpus among several: 2 shows its rows twice as often", above=0)
    mix: "list[SplitArguments]" = field(
        default_factory=list, metadata={"help": "several corpora, each with the names above; or make the split a list"}
    )

    @property
    def is_named(self) -> bool:
        """Whether the recipe says where this split comes from."""
        return bool(self.dataset or self.source or self.target or self.mix)

    @property
    def corpora(self) -> "list[SplitArguments]":
        """The corpora of the split; usually it is one itself."""
        return self.mix or [self]

    def __str__(self) -> str:
        return " and ".join(corpus.dataset or f"{corpus.source} + {corpus.target}" for corpus in self.corpora)


@dataclass
class DataArguments:
    """The data and what happens to rows that cannot be used."""

    train: SplitArguments = field(default_factory=SplitArguments)
    validation: SplitArguments = field(default_factory=SplitArguments)
    test: SplitArguments = field(default_factory=SplitArguments)
    max_source_tokens: int = arg(256, "a source with more tokens (</s> included) is a bad row", minimum=2)
    max_target_tokens: int = arg(256, "a target with more tokens (</s> included) is a bad row", minimum=2)
    bad_rows: Literal["refuse", "drop"] = arg("refuse", "empty, non-text and over-long rows: stop, or drop and count")
    validation_rows: int = arg(
        1000, "rows of train to hold out (at most a tenth) when no validation is named", minimum=1
    )
    temperature: float = arg(
        1.0,
        "of several corpora: each is drawn from by weight * rows ** (1 / temperature); above 1 favours small ones",
        minimum=1,
    )
    clean: list[Filter] = field(
        default_factory=list, metadata={"help": "leave rows out of train by these filters; true: by all of them"}
    )
    max_rows: int | None = arg(None, "keep only so many rows of each split, drawn by seed: to try things", minimum=1)
    keep_stress: bool = arg(False, "builtin:cmudict: keep the stress digits of vowels (AH0)")

    @property
    def tags_languages(self) -> bool:
        """Whether a source says which language it is to be translated into."""
        return len({corpus.tgt_lang for corpus in self.train.corpora}) > 1


@dataclass
class TrainingArguments:
    """Length, batches, optimizer and bookkeeping of the run."""

    max_steps: int | None = arg(10_000, "stop after so many optimizer steps; null: no limit", minimum=1)
    max_minutes: float | None = arg(None, "stop after so many minutes of training; null: no limit", above=0)
    max_epochs: int | None = arg(None, "stop after so many passes over the data; null: no limit", minimum=1)
    batch_tokens: int = arg(4096, "source + target tokens of a batch and process, padding included", minimum=2)
    accumulation_steps: int = arg(1, "batches summed into one optimizer step", minimum=1)
    learning_rate: float | None = arg(
        None, "highest learning rate; for noam the factor on the paper's formula. null: 5e-4, for noam 1.0", above=0
    )
    schedule: Literal["noam", "inverse_sqrt", "linear", "cosine"] = arg(
        "inverse_sqrt", "course of the learning rate after warm-up"
    )
    warmup_steps: int = arg(1000, "steps in which the learning rate rises from 0", minimum=0)
    weight_decay: float = arg(0.01, "AdamW's decoupled weight decay", minimum=0)
    adam_beta1: float = arg(0.9, "decay of the mean of gradients", minimum=0, below=1)
    adam_beta2: float = arg(0.98, "decay of the mean of squared gradients", minimum=0, below=1)
    adam_epsilon: float = arg(1e-9, "keeps the division of Adam finite", above=0)
    max_grad_norm: float | None = arg(1.0, "gradients are clipped to this norm; null: not at all", above=0)
    precision: Literal["auto", "fp32", "bf16"] = arg("auto", "auto: bf16 where a GPU has it, else fp32")
    seed: int = arg(42, "decides initial weights, dropout, order of batches and held-out rows", minimum=0)
    eval_every: int = arg(500, "steps between evaluations on the validation split", minimum=1)
    save_every: int = arg(500, "steps between checkpoints", minimum=1)
    log_every: int = arg(20, "steps between lines of metrics.jsonl", minimum=1)
    keep_checkpoints: int = arg(2, "how many of the newest checkpoints stay on disk", minimum=1)
    patience: int | None = arg(
        None, "stop after so many evaluations without a better best_metric; null: never", minimum=1
    )
    best_metric: Literal["loss", "bleu", "chrf", "per", "wer", "exact", "accuracy", "f1"] = arg(
        "loss", "what chooses the best model on the validation split"
    )
    packing: int | None = arg(
        None,
        "length of rows that hold several sentences; null: each sentence has a row; left out: 128 on GPUs and 64 on "
        "CPUs that compute in bf16, where the model can",
        minimum=2,
    )
    attn_implementation: str | None = arg(None, "attention kernel: sdpa or eager; null: the device's choice")
    gradient_checkpointing: bool = arg(False, "trade time for memory: compute activations again in backward")
    trackers: list[Tracker] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "where metrics.jsonl also goes"}
    )
    average_models: int = arg(
        1, "the final model is the mean of so many that were saved at evaluations; 1: the best one", minimum=1
    )
    average: Literal["best", "last"] = arg("best", "which of them: those with the best best_metric, or the last ones")
    ema_decay: float | None = arg(
        None, "evaluate and save a running mean of the weights, such as 0.999; null: the weights", above=0, below=1
    )
    r_drop: float | None = arg(
        None, "weight of the difference between two passes with different dropout (seq2seq), such as 5", above=0
    )
    scheduled_sampling: float | None = arg(
        None,
        "the decoder reads the model's own token instead of the true one (seq2seq) with a probability that rises to "
        "this, such as 0.25",
        above=0,
        maximum=1,
    )
    bpe_dropout: float | None = arg(
        None, "cut words differently each time: probability of leaving a merge out, such as 0.1", above=0, below=1
    )
    init_from: list[str] = field(
        default_factory=list,
        metadata={"help": "trained models (RUN/model): begin with their weights where name and shape are the same"},
    )
    source_vectors: str | None = arg(
        None, "file of word vectors (word2vec text or binary, GloVe) that the source's embedding begins with"
    )
    target_vectors: str | None = arg(None, "the same for the target's embedding")
    max_bad_steps: int = arg(
        10, "stop after so many steps in a row whose loss or gradient is not finite; such steps are skipped", minimum=1
    )
    timeout_minutes: float = arg(30.0, "a process that waits longer for the others ends the run", above=0)

    def __post_init__(self) -> None:
        if self.learning_rate is None:
            self.learning_rate = 1.0 if self.schedule == "noam" else 5e-4


@dataclass
class GenerationArguments:
    """How the model generates when it is evaluated, and what is measured; the model keeps these settings."""

    config: str | None = arg(None, "generation_config.json, relative to the recipe; the settings here win over it")
    num_beams: int = arg(1, "beams of the search; 1: greedy", minimum=1)
    max_new_tokens: int = arg(256, "longest generated sequence", minimum=1)
    length_penalty: float = arg(1.0, "exponent on the length in beam search; above 1 prefers longer sequences")
    metrics: list[Metric] = field(
        default_factory=lambda: ["bleu", "chrf"], metadata={"help": "what is measured on generated text"}
    )
    eval_rows: int = arg(200, "validation rows generated for at intervals (the test set is always whole)", minimum=1)
    batch_size: int = arg(64, "sentences generated at once", minimum=1)


@dataclass
class RunArguments:
    """A whole training run."""

    objective: Literal["seq2seq", "masked_lm", "causal_lm", "sequence_classification", "token_classification"] = arg(
        "seq2seq", "what is learned; a label, or tags for the words, stand as the target; language models need none"
    )
    model: dict[str, Any] = field(default_factory=dict)  # `config` (a JSON file), `model_type`, fields of its config
    tokenizer: TokenizerArguments = field(default_factory=TokenizerArguments)
    data: DataArguments = field(default_factory=DataArguments)
    training: TrainingArguments = field(default_factory=TrainingArguments)
    generation: GenerationArguments = field(default_factory=GenerationArguments)
    output_dir: str | None = arg(None, "folder for everything the run writes")
    resume: str | bool = arg(
        "no", "go on from a checkpoint: true (the newest in output_dir), auto (if there is one), its folder, or no"
    )
    overwrite: bool = arg(False, "empty output_dir first if something is in it")
    allow_changes: bool = arg(False, "go on with a run although its recipe has changed")
    dry_run: bool = arg(False, "train a few steps, print what the run needs and how long it takes, write nothing")
    profile: int | None = arg(
        None, "train so many steps, write where their time goes to OUTPUT_DIR/profile, and nothing else", minimum=1
    )
    recipe: str | None = field(default=None, compare=False)  # where these arguments were read from
    given: frozenset[str] = field(default=frozenset(), compare=False)  # names in the recipe or on the command line

    def __post_init__(self) -> None:
        words: dict[str | bool, str | bool] = {False: "no", "false": "no", "true": True, "yes": True}
        self.resume = words.get(self.resume, self.resume)

    def to_yaml(self) -> str:
        """The arguments as a recipe that gives them again."""
        sections = dataclasses.asdict(self)
        del sections["recipe"], sections["given"]
        return yaml.dump(sections, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True)


# ── YAML 1.2: 1e-3 is a number, and the language code `no` is not False ──────────────────────────────────────────


class RecipeLoader(yaml.SafeLoader):
    """YAML 1.2's core schema; a key that stands twice is refused."""

    yaml_implicit_resolvers = {
        letter: [rule for rule in rules if rule[0].rpartition(":")[2] in ("null", "merge")]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


class RecipeDumper(yaml.SafeDumper):
    """Puts quotes around text that YAML 1.1 or 1.2 would read as something else."""


_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _yaml_class in (RecipeLoader, RecipeDumper):
    for _tag, _pattern, _first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
        ("float", _NUMBER, "-+.0123456789"),
    ):
        _rule = re.compile(f"^(?:{_pattern})$")
        _yaml_class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _rule, list(_first))


def read_yaml(text: str, name: str) -> Any:
    """Parses YAML; `name` says in the error where the text came from.

    Raises:
        ValueError: the text is not YAML.
    """
    try:
        return yaml.load(text, RecipeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {error}") from error


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


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


def measured_scores(arguments: RunArguments) -> list[str]:
    """The scores that an evaluation gives beside the loss."""
    if arguments.objective == "seq2seq":
        return list(arguments.generation.metrics)
    return ["accuracy", "f1"] if arguments.objective.endswith("classification") else []


def drop_targets(arguments: RunArguments) -> None:
    """Language models have no target: the source stands in for it."""
    for name in SPLITS:
        for split in getattr(arguments.data, name).corpora:
            split.target, split.target_column = split.source, split.source_column


def check_split(split: SplitArguments, name: str, tags_languages: bool) -> None:
    """Checks where the rows of a split come from.

    Raises:
        ValueError: too little or too much is named.
    """
    if split.mix and (split.dataset or split.source or split.target):
        raise ValueError(f"data.{name} names a mix and another origin. Put that into the mix, too.")
    for number, corpus in enumerate(split.corpora):
        place = f"data.{name}.mix[{number}]" if split.mix else f"data.{name}"
        if split.mix and (corpus.mix or not corpus.is_named):
            raise ValueError(f"{place} must name a dataset, or source and target.")
        if corpus.dataset and (corpus.source or corpus.target):
            raise ValueError(f"{place} names a dataset and text files. Keep dataset, or source and target.")
        if bool(corpus.source) != bool(corpus.target):
            missing = "target" if corpus.source else "source"
            raise ValueError(f"{place}.{missing} is missing: text files come in line-aligned pairs.")
        if tags_languages and split.is_named and not corpus.tgt_lang:
            raise ValueError(f"{place}.tgt_lang is missing: data.train has several target languages.")
        if corpus.tgt_lang and not re.fullmatch(r"[\w-]+", corpus.tgt_lang):
            raise ValueError(f"{place}.tgt_lang={corpus.tgt_lang} is no language. Give a code such as en or zh_Hant.")


def check_together(arguments: RunArguments) -> None:
    """Checks what depends on more than one field.

    Raises:
        ValueError: naming the fields and how to fix them.
    """
    data, training, generation = arguments.data, arguments.training, arguments.generation
    if not data.train.is_named:
        raise ValueError("No training data: give data.train.dataset, or data.train.source and data.train.target.")
    for name in SPLITS:
        check_split(getattr(data, name), name, data.tags_languages)
    if training.max_steps is None and training.max_minutes is None and training.max_epochs is None:
        raise ValueError("Training would never end: give training.max_steps, max_minutes or max_epochs.")
    measured = ["loss", *measured_scores(arguments)]
    if training.best_metric not in measured:
        hint = "Add it to generation.metrics, or choose" if arguments.objective == "seq2seq" else "Choose"
        raise ValueError(
            f"training.best_metric={training.best_metric} is not measured. {hint} one of {', '.join(measured)}."
        )
    for name in ("r_drop", "scheduled_sampling"):
        if getattr(training, name) is not None and arguments.objective != "seq2seq":
            raise ValueError(f"training.{name} is for objective: seq2seq, got {arguments.objective}. Leave it out.")
        if getattr(training, name) is not None and training.packing:
            raise ValueError(f"training.{name} reads padded rows. Leave it out, or make training.packing null.")
    if training.packing and arguments.objective != "seq2seq":
        raise ValueError(f"training.packing is for objective: seq2seq, got {arguments.objective}. Leave it out.")
    if training.r_drop is not None and training.scheduled_sampling is not None:
        raise ValueError("training.r_drop and training.scheduled_sampling do not go together. Leave one out.")
    starts = ("init_from", "a folder"), ("source_vectors", "a file"), ("target_vectors", "a file")
    for name, kind in starts if arguments.resume == "no" else ():  # a resumed run has what it began with
        value = getattr(training, name)
        for path in value if isinstance(value, list) else [value] * (value is not None):
            if not (Path(path).is_dir() if kind == "a folder" else Path(path).is_file()):
                raise ValueError(f"training.{name}={path} is not {kind}.")
    for name, path in (("model.config", arguments.model.get("config")), ("generation.config", generation.config)):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"{name}: there is no file {path}.")


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
