"""TODO recipe/arguments."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from .yaml12 import RecipeDumper

Filter = Literal["duplicates", "identical", "ratio", "script", "control"]
Metric = Literal["bleu", "chrf", "per", "wer", "exact"]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "swanlab"]
SPLITS = ("train", "validation", "test")
# Where nobody says otherwise, training/defaults.py chooses these by the number of training pairs.
BY_CORPUS_SIZE = {
    "tokenizer.vocab_size",
    *(f"training.{name}" for name in ("batch_tokens", "gradient_accumulation_steps", "learning_rate", "warmup_steps")),
    *(f"training.{name}" for name in ("max_steps", "num_train_epochs", "patience", "eval_steps", "save_steps")),
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
    num_train_epochs: int | None = arg(None, "stop after so many passes over the data; null: no limit", minimum=1)
    batch_tokens: int = arg(4096, "source + target tokens of a batch and process, padding included", minimum=2)
    gradient_accumulation_steps: int = arg(1, "batches summed into one optimizer step", minimum=1)
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
    eval_steps: int = arg(500, "steps between evaluations on the validation split", minimum=1)
    save_steps: int = arg(500, "steps between checkpoints", minimum=1)
    logging_steps: int = arg(20, "steps between lines of metrics.jsonl", minimum=1)
    save_total_limit: int = arg(2, "how many of the newest checkpoints stay on disk", minimum=1)
    patience: int | None = arg(
        None, "stop after so many evaluations without a better metric_for_best_model; null: never", minimum=1
    )
    metric_for_best_model: Literal["loss", "bleu", "chrf", "per", "wer", "exact", "accuracy", "f1"] = arg(
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
    report_to: list[Tracker] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "where metrics.jsonl also goes"}
    )
    average_models: int = arg(
        1, "the final model is the mean of so many that were saved at evaluations; 1: the best one", minimum=1
    )
    average: Literal["best", "last"] = arg(
        "best", "which of them: those with the best metric_for_best_model, or the last ones"
    )
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
    threads: Any = arg("auto", "CPU threads of a process")  # noqa: RUF009
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
