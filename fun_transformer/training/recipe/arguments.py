"""Every argument of a training run: a tree of dataclasses, each field with its meaning, default and limits.

Fields that mean the same as one of transformers' `TrainingArguments` have its name. "auto" is the word for "you
choose": a field with `auto=...` accepts it, and `defaults.resolve` replaces it by a value. None (`null` in a recipe)
means off.
"""

import dataclasses
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import yaml

from .yaml12 import RecipeDumper

AUTO = "auto"
Filter = Literal["duplicates", "identical", "ratio", "script", "control"]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "swanlab"]
SPLITS = ("train", "validation", "test")
BY_PAIRS = "by the number of training pairs"
BY_TEXTS = "by the training texts: "
NO_LIMIT = "null"
OF_MODEL = "the trained model's own; else {}"


def arg(default: Any, help: str, auto: str = "", **limits: float) -> Any:
    """Return a dataclass field that says what it means.

    Args:
        default: Its default; "auto" where we choose.
        help: What it means, for `--help`.
        auto: How a value is chosen; empty where "auto" is not allowed. The field's type is that of the chosen value.
        limits: `minimum` and `maximum` (included), `above` and `below` (not included).
    """
    return field(default=default, metadata={"help": help, "auto": auto, "limits": limits})


def column_name(value: Any) -> Any:
    """Return the number of a column as text, as the columns of a file without a header are called."""
    return str(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


@dataclass
class TokenizerArguments:
    """Which tokenizer: a finished one (`path`), or one trained on the training split."""

    path: str | None = arg(None, "folder or Hub name of a finished tokenizer; without it one is trained")
    type: Literal["bpe", "unigram", "char", "word"] = arg(
        AUTO,
        "how text is cut into tokens",
        BY_TEXTS
        + "bpe; char for single words and word for short symbols, where neither side is sentences (letters to "
        "sounds, inflection, transliteration), with two vocabularies where the sides differ",
    )
    vocab_size: int = arg(
        AUTO,
        "size of the vocabulary, special tokens included (char, word: at most)",
        BY_PAIRS,
        minimum=6,
        maximum=10_000_000,
    )
    target_type: Literal["bpe", "unigram", "char", "word"] | None = arg(
        None, "how target text is cut; null: as the source, with one shared vocabulary"
    )
    target_vocab_size: int | None = arg(
        None, "size of a vocabulary of its own for the target; null: one for both sides", minimum=6, maximum=10_000_000
    )
    lowercase: Literal["none", "source", "both"] = arg("none", "which sides are lower-cased")
    max_rows: int = arg(
        1_000_000, "rows of the training split that it is trained on, sampled by seed where there are more", minimum=1
    )
    min_frequency: int = arg(
        AUTO,
        "a token seen less often in training does not enter the vocabulary",
        BY_TEXTS + "1 for words and symbols, as above; else 2",
        minimum=1,
    )
    normalization: Literal["nfc", "nfd", "none"] = arg(
        "nfc", "Unicode form that text is brought into; nfd takes letters and Hangul syllables apart, none keeps them"
    )
    new_tokens: list[str] = field(
        default_factory=list,
        metadata={
            "help": "model.path: words that its tokenizer is to keep whole; they begin as the mean of their pieces"
        },
    )
    new_languages: list[str] = field(
        default_factory=list,
        metadata={
            "help": "languages to add to model.path: yue_Hant=zho_Hant begins as that language, yue_Hant alone as the "
            "mean of all"
        },
    )


@dataclass
class SplitArguments:
    """Where one split comes from: `dataset`, line-aligned text files `source` and `target`, or a list of such."""

    dataset: str | None = arg(
        None,
        "Hub name, folder, builtin:cmudict, builtin:hsk, path or pattern (*) of .jsonl, .json, .tsv, .csv, .parquet",
    )
    config: str | None = arg(None, "configuration of a Hub data set, such as a language pair")
    split: str | None = arg(None, "split of a Hub or built-in data set; null: the section's own name")
    source_column: str = arg(
        "source", "column of the source text; dots reach inside: translation.zh; a number, from 0, without a header"
    )
    target_column: str = arg("target", "column of the target text; dots reach inside: translation.en")
    references_column: list[str] = field(
        default_factory=list,
        metadata={
            "help": "column with a list of accepted targets, or several columns with one each: training has a row for "
            "each of them, evaluation takes any"
        },
    )
    feature_columns: list[str] = field(
        default_factory=list,
        metadata={"help": "columns whose values come before the source as tokens of their own: <domain:news>"},
    )
    source: str | None = arg(None, "text file with one source sentence a line (plain, .gz, .xz, .bz2 or .zst)")
    target: str | None = arg(None, "text file whose lines translate those of `source`")
    src_lang: str | None = arg(None, "language of the sources, such as zh")
    tgt_lang: str | None = arg(
        None, "language of the targets; where those of train differ, each source begins with the one wanted: >>en<<"
    )
    weight: float = arg(1.0, "of a corpus among several: 2 shows its rows twice as often", above=0, maximum=1_000_000)
    mix: "list[SplitArguments]" = field(
        default_factory=list, metadata={"help": "several corpora, each with the names above; or make the split a list"}
    )

    def __post_init__(self) -> None:
        for name in ("source_column", "target_column"):  # by number
            setattr(self, name, column_name(getattr(self, name)))
        for name in ("references_column", "feature_columns"):
            value = getattr(self, name)
            setattr(self, name, [*map(column_name, value)] if isinstance(value, list | tuple) else column_name(value))

    @property
    def is_named(self) -> bool:
        """Return whether the recipe says where this split comes from."""
        return bool(self.dataset or self.source or self.target or self.mix)

    @property
    def corpora(self) -> "list[SplitArguments]":
        """Return the corpora of the split; usually it is one itself."""
        return self.mix or [self]

    def __str__(self) -> str:
        return " and ".join(
            corpus.dataset or " + ".join(dict.fromkeys(filter(None, (corpus.source, corpus.target))))
            for corpus in self.corpora
        )


@dataclass
class NoiseArguments:
    """Mistakes put into training sources, differently in each epoch, so that a model also understands such texts.

    The letter case is that of a whole row: it has one of `upper`, `lower` and `title` at most.
    """

    upper: float = arg(0.0, "probability that a source is in upper case", minimum=0, maximum=1)
    lower: float = arg(0.0, "probability that it is in lower case", minimum=0, maximum=1)
    title: float = arg(0.0, "probability that Each Word Begins With a Capital", minimum=0, maximum=1)
    punctuation: float = arg(
        0.0, "probability that punctuation is missing: half the time that at the end, else all", minimum=0, maximum=1
    )
    typos: float = arg(
        0.0, "probability of each letter to be left out, doubled, exchanged or replaced", minimum=0, maximum=1
    )
    split: float = arg(0.0, "probability of each word to be torn in two", minimum=0, maximum=1)
    join: float = arg(0.0, "probability of each space between words to be missing", minimum=0, maximum=1)

    @property
    def is_on(self) -> bool:
        """Return whether any is asked for."""
        return any(vars(self).values())


@dataclass
class DataArguments:
    """The data and what happens to rows that cannot be used."""

    train: SplitArguments = field(default_factory=SplitArguments)
    validation: SplitArguments = field(default_factory=SplitArguments)
    test: SplitArguments = field(default_factory=SplitArguments)
    name: str | None = arg(None, "what the model card calls the training data; null: the names of its files")
    max_source_tokens: int = arg(256, "a source with more tokens (</s> included) is a bad row", minimum=2)
    max_target_tokens: int = arg(256, "a target with more tokens (</s> included) is a bad row", minimum=2)
    bad_rows: Literal["refuse", "drop"] = arg(
        "refuse", "empty, non-text, unreadable and over-long rows: stop, or drop and count"
    )
    validation_rows: int = arg(
        1000, "rows of train to hold out (at most a tenth) when no validation is named", minimum=1
    )
    temperature: float = arg(
        1.0,
        "of several corpora: each is sampled by weight * rows ** (1 / temperature); above 1 favours small ones",
        minimum=1,
    )
    clean: list[Filter] = field(
        default_factory=list, metadata={"help": "leave rows out of train by these filters; true: by all of them"}
    )
    max_rows: int | None = arg(
        None, "rows of each split to keep, sampled by seed: to try things; null: all", minimum=1
    )
    source_prefix: str = arg(
        "",
        "text that each source begins with, as T5 wants: 'translate English to German: '; its last space counts",
    )
    noise: NoiseArguments = field(default_factory=NoiseArguments)
    curriculum: Literal["none", "shortest_first"] = arg(
        "none",
        "order of the first epoch: none is by chance; short sources first help where long ones teach nothing yet",
    )
    spec_augment: bool = arg(False, "speech: hide two bands of frequencies and a stretch of time, others each time")
    keep_stress: bool = arg(False, "builtin:cmudict: keep the stress digits of vowels (AH0)")

    @property
    def tags_languages(self) -> bool:
        """Return whether a source says which language it is to be translated into."""
        return len({corpus.tgt_lang for corpus in self.train.corpora}) > 1


@dataclass
class LoraArguments:
    """Which small matrices are trained in the place of all weights (Hu et al. 2021, arXiv:2106.09685)."""

    r: int | None = arg(
        None, "rank of the matrices that are trained beside each layer of model.path; null: no LoRA", minimum=1
    )
    alpha: float = arg(AUTO, "what they add is multiplied by alpha / r", "2 * r", above=0, maximum=1_000_000)
    target_modules: list[str] = field(
        default=AUTO,  # type: ignore[arg-type]
        metadata={
            "help": "names of the layers that get them, such as q_proj,v_proj",
            "auto": "all linear layers of attention and feed-forward",
        },
    )
    dropout: float = arg(0.0, "dropout before them", minimum=0, below=1)
    merge: bool = arg(False, "write a whole model at the end, instead of the adapter")


@dataclass
class TrainingArguments:
    """Length, batches, optimizer and bookkeeping of the run."""

    max_steps: int | None = arg(AUTO, "stop after this many optimizer steps; null: no limit", NO_LIMIT, minimum=1)
    max_minutes: float | None = arg(
        AUTO, "stop after this many minutes of training; null: no limit", NO_LIMIT, above=0
    )
    num_train_epochs: int | None = arg(
        AUTO,
        "stop after this many passes over the data; null: no limit",
        f"{BY_PAIRS}; null where another limit is named",
        minimum=1,
    )
    batch_tokens: int = arg(
        AUTO,
        "source + target tokens of a batch and process, padding included",
        BY_PAIRS,
        minimum=2,
        maximum=1_000_000_000,
    )
    gradient_accumulation_steps: int = arg(
        AUTO, "batches summed into one optimizer step", BY_PAIRS, minimum=1, maximum=100_000
    )
    learning_rate: float = arg(
        AUTO,
        "highest learning rate; for noam the factor on the paper's formula",
        f"{BY_PAIRS}; for noam 1.0; for optim: muon eight times that of AdamW, at most 8e-3",
        above=0,
        maximum=1_000,
    )
    schedule: Literal["noam", "inverse_sqrt", "linear", "cosine"] = arg(
        AUTO,
        "course of the learning rate after warm-up",
        "inverse_sqrt, and linear where a trained model goes on (model.path)",
    )
    warmup_steps: int = arg(AUTO, "steps in which the learning rate rises from 0", BY_PAIRS, minimum=0)
    optim: Literal["adamw", "muon"] = arg(
        "adamw", "optimizer; muon is for the matrices inside the layers, with AdamW for all other weights"
    )
    weight_decay: float = arg(0.01, "decoupled weight decay", minimum=0, maximum=100)
    adam_beta1: float = arg(0.9, "decay of the mean of gradients", minimum=0, below=1)
    adam_beta2: float = arg(0.98, "decay of the mean of squared gradients", minimum=0, below=1)
    adam_epsilon: float = arg(1e-9, "keeps the division of Adam finite", above=0, maximum=1)
    max_grad_norm: float | None = arg(1.0, "gradients are clipped to this norm; null: not at all", above=0)
    precision: Literal["fp32", "bf16"] = arg(
        AUTO,
        "number format of the matrix products; weights and optimizer stay in fp32",
        "bf16 where the GPU or the processor multiplies it faster than fp32",
    )
    threads: int = arg(
        AUTO,
        "CPU threads of each process",
        "OMP_NUM_THREADS where it is set, else this machine's cores shared by its processes",
        minimum=1,
        maximum=4_096,
    )
    seed: int = arg(
        42, "decides initial weights, dropout, order of batches and held-out rows", minimum=0, maximum=4_000_000_000
    )
    eval_steps: int = arg(
        AUTO, "steps between evaluations on the validation split", "one epoch, from 50 to 5,000 steps", minimum=1
    )
    save_steps: int = arg(
        AUTO,
        "steps between checkpoints; there is always one at the end",
        "the first multiple of eval_steps from 500 on",
        minimum=1,
    )
    logging_steps: int = arg(20, "steps between lines of metrics.jsonl", minimum=1)
    save_total_limit: int = arg(2, "how many of the newest checkpoints stay on disk", minimum=1)
    patience: int | None = arg(
        AUTO,
        "stop after this many evaluations in a row without a better metric_for_best_model; null: never",
        "5 where no limit is named, else null",
        minimum=1,
    )
    metric_for_best_model: str = arg(
        "loss", "what chooses the best model on the validation split: loss, or a score that is measured there"
    )
    packing: int | None = arg(
        AUTO,
        "length of rows that hold several sentences; null: each sentence has a row",
        "128 on GPUs and 64 on CPUs that compute in bf16, where the model can, else null",
        minimum=2,
        maximum=65_536,
    )
    attn_implementation: str = arg(AUTO, "attention kernel, such as sdpa or eager", "by the device")
    gradient_checkpointing: bool = arg(False, "trade time for memory: compute activations again in backward")
    report_to: list[Tracker] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "where metrics.jsonl also goes"}
    )
    average_models: int = arg(
        1,
        "the final model is the mean of this many that were saved at evaluations; 1: the best one",
        minimum=1,
        maximum=1_000,
    )
    average: Literal["best", "last"] = arg(
        AUTO,
        "which of them: those with the best metric_for_best_model, or the last ones",
        "best; last for words and symbols, whose learning rate falls to 0",
    )
    ema_decay: float | None = arg(
        None, "evaluate and save a running mean of the weights, such as 0.999; null: the weights", above=0, below=1
    )
    r_drop: float | None = arg(
        None, "weight of the difference between two passes with different dropout, such as 5", above=0, maximum=1_000
    )
    scheduled_sampling: float | None = arg(
        None,
        "the decoder reads the model's own token instead of the true one with a probability that rises to "
        "this, such as 0.25",
        above=0,
        maximum=1,
    )
    teacher: list[str] = field(
        default_factory=list,
        metadata={
            "help": "trained models with this run's tokenizer whose mean prediction of each token is learned, too"
        },
    )
    teacher_weight: float = arg(
        0.5, "how much of the loss is the difference to the teacher; 1: all", above=0, maximum=1
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
    lora: LoraArguments = field(default_factory=LoraArguments)
    freeze: list[str] = field(
        default_factory=list,
        metadata={"help": "modules whose weights stay as they are: encoder, decoder, embeddings, or a path inside"},
    )
    max_bad_steps: int = arg(
        10,
        "stop after this many steps in a row whose loss or gradient is not finite; such steps are skipped",
        minimum=1,
    )
    timeout_minutes: float = arg(
        30.0, "a process that waits longer for the others ends the run", above=0, maximum=525_600
    )


@dataclass
class GenerationArguments:
    """How the model generates when it is evaluated, and what is measured; the model keeps these settings."""

    config: str | None = arg(None, "generation_config.json, relative to the recipe; the settings here win over it")
    num_beams: int = arg(AUTO, "beams of the search; 1: greedy", OF_MODEL.format("1"), minimum=1, maximum=1_000)
    max_new_tokens: int = arg(AUTO, "longest generated sequence", OF_MODEL.format("256"), minimum=1, maximum=1_000_000)
    length_penalty: float = arg(
        AUTO,
        "exponent on the length in beam search; above 1 prefers longer sequences",
        OF_MODEL.format("1.0"),
        minimum=-100,
        maximum=100,
    )
    metrics: list[str] = field(
        default=AUTO,  # type: ignore[arg-type]
        metadata={
            "help": "what is measured on generated text; plug-ins add to these",
            "auto": BY_TEXTS
            + "bleu and chrf; where no side is sentences, per and g2p_wer for symbols, exact and chrf "
            "for words; and what chooses the best model",
        },
    )
    eval_rows: int = arg(200, "validation rows generated for at intervals (the test set is always whole)", minimum=1)
    batch_size: int = arg(64, "sentences generated at once", minimum=1, maximum=100_000)
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab"] = arg(
        AUTO,
        "how BLEU cuts text into words, by sacreBLEU's names",
        "by the script of the training targets: 13a where there are spaces, zh for Chinese, char for Japanese, Thai "
        "and others",
    )


@dataclass
class RunArguments:
    """A whole training run."""

    objective: str = arg(
        "seq2seq",
        "what is learned, or the name of a plug-in's; a label, or tags for the words, are the target; language models "
        "need none",
    )
    # `path` (a trained model), or `config` (a JSON file), `model_type` and fields of its config
    model: dict[str, Any] = field(default_factory=dict)
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
        None,
        "train this many steps, write where their time goes to OUTPUT_DIR/profile, and nothing else",
        minimum=1,
        maximum=100_000,
    )
    plugins: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Python files that add metrics, objectives, positions or mixers, relative to the recipe; they are "
            "run. --plugin FILE, repeated or with commas, names them, too"
        },
    )
    recipe: str | None = field(default=None, compare=False)  # where these arguments were read from

    def __post_init__(self) -> None:
        words: dict[str | bool, str | bool] = {False: "no", "false": "no", "true": True, "yes": True}
        self.resume = words.get(self.resume, self.resume)

    def to_yaml(self) -> str:
        """Return the arguments as the text of a recipe that gives them again."""
        sections = dataclasses.asdict(self)
        del sections["recipe"]
        return yaml.dump(sections, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True)
