"""What "auto" means: most values are chosen by the size of the corpus, from one table.

A large model learns a small corpus by heart, and a large vocabulary leaves a small corpus few examples of each token.
The values follow published practice (docs/training.md says which): the paper for millions of pairs (Vaswani et al.
2017), the customary IWSLT setting for hundreds of thousands (Ott et al. 2019), and for less the studies of Sennrich
and Zhang (2019) and of Araabi and Monz (2020).

What the texts decide, `texts.py` has chosen before. The rest is resolved in two steps, as the vocabulary must be
chosen before tokens can be counted:

    arguments = resolve(arguments, pairs, device)
    arguments = resolve_rhythm(arguments, tokens, processes)

What then still says "auto" is `training.threads`: it belongs to the machine, not to the run.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from ..tables import OBJECTIVES
from .arguments import AUTO, RunArguments, TrainingArguments
from .base import base_config, base_generation, is_own, starts_from_model
from .model_config import choose_kernel, choose_packing, choose_precision, model_type_of
from .texts import CHOICES, SYMBOLS

GENERATION = {"num_beams": 1, "max_new_tokens": 256, "length_penalty": 1.0}  # of a fresh model
LIMITS = ("max_steps", "num_train_epochs", "max_minutes")


@dataclass(frozen=True)
class Scale:
    """Good values for corpora of a size."""

    pairs: float  # at most
    vocab_size: int
    d_model: int
    layers: int  # in the encoder, and in the decoder
    heads: int
    ffn_dim: int
    dropout: float
    batch_tokens: int
    gradient_accumulation_steps: int
    learning_rate: float
    warmup_steps: int
    num_train_epochs: int


SCALES = (
    #     pairs    vocab  d_model L  H  ffn   drop batch tokens x  rate  warm-up epochs
    Scale(20_000, 4_000, 128, 3, 4, 512, 0.3, 2_048, 1, 1e-3, 400, 100),
    Scale(200_000, 8_000, 256, 3, 4, 1024, 0.2, 4_096, 1, 1e-3, 1_000, 60),
    Scale(2_000_000, 16_000, 512, 6, 8, 1024, 0.2, 8_192, 1, 5e-4, 4_000, 30),
    Scale(float("inf"), 32_000, 512, 6, 8, 2048, 0.1, 25_000, 2, 7e-4, 4_000, 20),  # the paper's base model
)


@dataclass(frozen=True)
class FineTuningScale:
    """Good values for a trained model that goes on with a corpus of a size."""

    pairs: float  # at most
    batch_tokens: int
    num_train_epochs: int


FINE_TUNING_SCALES = (
    FineTuningScale(20_000, 2_048, 10),
    FineTuningScale(200_000, 4_096, 5),
    FineTuningScale(float("inf"), 8_192, 3),
)
MUON_RATE = 8e-3  # at most: benchmarks.optimizers, and docs/training.md
LONGEST_WARMUP = 500  # steps, where a trained model goes on; else a tenth of the run
# Highest learning rates of AdamW: 3e-4 is the documentation's for T5, 5e-5 customary for all others; models of this
# package have trained with 5e-4 to 1e-3.
FINE_TUNING_RATES = {"t5": 3e-4, "mt5": 3e-4, "umt5": 3e-4, "fun_transformer": 1e-4, "seq2seq_rnn": 1e-4}
FINE_TUNING_RATE = 5e-5
LORA_RATE = 5e-4  # its matrices begin at zero: Hu et al. 2021 train with 2e-4 to 5e-4
SMOOTHING = 0.1  # of labels, where a model of another family learns to write a target
PATIENCE = 5  # evaluations without a better one; there is one an epoch
EVALUATE_EVERY = (50, 5_000)  # steps: not more and not less often
SAVE_EVERY = 500  # steps at least: a checkpoint takes a second and three times the room of the model


def scale_for(pairs: int) -> Scale:
    """Return the row of the table for a number of training pairs."""
    return next(scale for scale in SCALES if pairs <= scale.pairs)


def size_fields(scale: Scale, model_type: str) -> dict[str, Any]:
    """Return the fields of a model's config that say how large it is."""
    fields: dict[str, Any] = {"d_model": scale.d_model}
    for side in ("encoder", "decoder"):
        fields[f"{side}_layers"] = scale.layers
        if model_type == "fun_transformer":
            fields |= {f"{side}_attention_heads": scale.heads, f"{side}_ffn_dim": scale.ffn_dim}
    return fields


def chosen_fields(model_type: str) -> set[str]:
    """Return the names of a model's fields that may be "auto"."""
    return {*size_fields(SCALES[0], model_type), "dropout"}


def learns_pieces(arguments: RunArguments) -> bool:
    """Return whether a vocabulary of sub-words is learned, whose size is free to choose."""
    is_fresh = not arguments.tokenizer.path and not starts_from_model(arguments)
    return arguments.tokenizer.type in ("bpe", "unigram") and is_fresh


def fill(section: Any, **values: Any) -> Any:
    """Return a section of the recipe with values in place of "auto"; what it names stays."""
    return dataclasses.replace(section, **{name: v for name, v in values.items() if getattr(section, name) == AUTO})


def choose_model(arguments: RunArguments, scale: Scale) -> dict[str, Any]:
    """Return the recipe's section `model` with sizes.

    Sizes that are left out are chosen where all of them are, and where no `model.config` is named: a size that the
    recipe names is not mixed with others that do not fit it.
    """
    model = arguments.model
    if starts_from_model(arguments):
        writes = arguments.objective == "seq2seq" and not is_own(base_config(arguments))
        return {"label_smoothing": SMOOTHING if writes else None} | {n: v for n, v in model.items() if v != AUTO}
    size = size_fields(scale, model_type_of(arguments))
    chosen = {**size, "dropout": scale.dropout}
    named = {name for name, value in model.items() if value != AUTO}
    left_out = set() if "config" in model else {"dropout"} if size.keys() & named else chosen.keys()
    open_fields = [name for name in chosen if model.get(name) == AUTO or (name in left_out and name not in model)]
    return model | {name: chosen[name] for name in open_fields}


def choose_limits(training: TrainingArguments, scale: Scale | FineTuningScale) -> dict[str, int | None]:
    """Return the limits of a run, and its patience: of those that are "auto", none where the recipe names one."""
    is_limited = any(getattr(training, name) not in (AUTO, None) for name in LIMITS)
    return {
        "max_steps": None,
        "max_minutes": None,
        "num_train_epochs": None if is_limited else scale.num_train_epochs,
        "patience": None if is_limited else PATIENCE,
    }


def choose_rate(training: TrainingArguments, schedule: str, rate: float) -> float:
    """Return the highest learning rate of a fresh model: for noam the factor of its formula, for Muon a higher one.

    Args:
        training: The recipe's section.
        schedule: Of the learning rate.
        rate: Good for AdamW.
    """
    if schedule == "noam":
        return 1.0
    return min(8 * rate, MUON_RATE) if training.optim == "muon" else rate


def choose_course(arguments: RunArguments, pairs: int) -> dict[str, Any]:
    """Return how long, in which batches and at which rate to train: gently and briefly, where a trained model goes on.

    Args:
        arguments: The recipe.
        pairs: Number of training pairs.
    """
    training, scale = arguments.training, scale_for(pairs)
    if not starts_from_model(arguments):
        schedule = "inverse_sqrt" if training.schedule == AUTO else training.schedule
        return {
            **choose_limits(training, scale),
            "batch_tokens": scale.batch_tokens,
            "gradient_accumulation_steps": scale.gradient_accumulation_steps,
            "schedule": schedule,
            "learning_rate": choose_rate(training, schedule, scale.learning_rate),
            "warmup_steps": scale.warmup_steps,
        }
    rate = FINE_TUNING_RATES.get(model_type_of(arguments), FINE_TUNING_RATE)
    rate = rate if training.lora.r is None else LORA_RATE
    tuning = next(scale for scale in FINE_TUNING_SCALES if pairs <= scale.pairs)
    return {
        **choose_limits(training, tuning),
        "batch_tokens": tuning.batch_tokens,
        "gradient_accumulation_steps": 1,
        "schedule": "linear",
        "learning_rate": 1.0 if training.schedule == "noam" else rate,
    }


def choose_generation(arguments: RunArguments) -> dict[str, Any]:
    """Return how a model generates where the recipe does not say it: as the one it starts from, if there is one.

    Where that limits the whole text (`max_length`), that is the most of new tokens.
    """
    if not starts_from_model(arguments):
        return GENERATION
    found = base_generation(arguments)
    own = {name: getattr(found, name) for name in GENERATION}
    own["max_new_tokens"] = own["max_new_tokens"] or found.max_length
    return {name: default if own[name] is None else own[name] for name, default in GENERATION.items()}


def resolve(arguments: RunArguments, pairs: int, device: torch.device) -> RunArguments:
    """Return the recipe with values in place of "auto", but for what `resolve_rhythm` chooses.

    Args:
        arguments: A checked recipe; it is left as it is.
        pairs: Number of training pairs.
        device: Where the model will be trained.
    """
    goes_on, usual = starts_from_model(arguments), CHOICES["sentence"]  # where no texts were looked at
    arguments = dataclasses.replace(
        arguments,
        tokenizer=arguments.tokenizer if goes_on else fill(arguments.tokenizer, type=usual.type, min_frequency=2),
        generation=fill(arguments.generation, metrics=[*usual.metrics], **choose_generation(arguments)),
    )
    scale, training = scale_for(pairs), arguments.training
    lora = training.lora if training.lora.r is None else fill(training.lora, alpha=2.0 * training.lora.r)
    training = fill(
        dataclasses.replace(training, lora=lora),
        **choose_course(arguments, pairs),
        average="best",
        precision=choose_precision(training, device),
        attn_implementation=choose_kernel(arguments, device),
    )
    symbols = scale.vocab_size if learns_pieces(arguments) else SYMBOLS
    arguments = dataclasses.replace(
        arguments,
        model=choose_model(arguments, scale),
        tokenizer=arguments.tokenizer if goes_on else fill(arguments.tokenizer, vocab_size=symbols),
        training=training,
    )
    return dataclasses.replace(arguments, training=fill(training, packing=choose_packing(arguments, device)))


def resolve_rhythm(arguments: RunArguments, tokens: int, processes: int) -> RunArguments:
    """Return the recipe with how often to evaluate (once an epoch) and to save (less often).

    Args:
        arguments: A recipe that `resolve` has returned; it is left as it is.
        tokens: Source and target tokens of the training split.
        processes: Number of processes.
    """
    training, (least, most) = arguments.training, EVALUATE_EVERY
    epoch = round(tokens / (training.batch_tokens * training.gradient_accumulation_steps * processes))
    if starts_from_model(arguments):
        planned = [training.max_steps, training.num_train_epochs and epoch * training.num_train_epochs]
        tenth = min([LONGEST_WARMUP, *(steps // 10 for steps in planned if steps is not None)])
        training = fill(training, warmup_steps=tenth)
    training = fill(training, eval_steps=min(max(epoch, least), most))
    training = fill(training, save_steps=training.eval_steps * -(-SAVE_EVERY // training.eval_steps))
    return dataclasses.replace(arguments, training=training)


def as_dict(section: Any) -> dict[str, Any]:
    """Return the names and values of a section of the recipe."""
    return section if isinstance(section, dict) else vars(section)


def show_value(value: Any) -> str:
    """Return a chosen value as a notice has it."""
    if isinstance(value, list):
        return " and ".join(value)
    return value if isinstance(value, str) else f"{value:,}"


def describe_choices(before: RunArguments, after: RunArguments, pairs: int, texts: str = "") -> str:
    """Return what was chosen, in words; an empty text where the recipe left nothing open.

    Args:
        before: The recipe as it was given.
        after: As it is run.
        pairs: Number of training pairs.
        texts: What kinds of text they are, where that decided something.
    """
    sections = ("tokenizer", "model", "training", "generation")
    old, new = ({section: as_dict(getattr(a, section)) for section in sections} for a in (before, after))
    by_texts = before.tokenizer.type == AUTO != after.tokenizer.type
    chosen = {
        f"{section}.{name}": value
        for section in sections
        for name, value in new[section].items()
        if value not in (AUTO, None, old[section].get(name, AUTO))
        and (old[section].get(name, AUTO) == AUTO or (section == "tokenizer" and by_texts))
    }
    if not learns_pieces(before) and not learns_pieces(after):
        chosen.pop("tokenizer.vocab_size", None)  # the text, or the finished tokenizer, decides it
        chosen.pop("tokenizer.target_vocab_size", None)
    if before.tokenizer.path:
        chosen.pop("tokenizer.type", None)
    if not OBJECTIVES[after.objective].generates:
        chosen.pop("generation.metrics", None)
    if "bleu" not in after.generation.metrics and after.generation.metrics != AUTO:
        chosen.pop("generation.bleu_tokenize", None)
    usual: dict[str, Any] = {f"generation.{name}": value for name, value in GENERATION.items()}
    usual |= {"tokenizer.min_frequency": 2, "training.average": "best"}
    writes = OBJECTIVES[after.objective].generates
    for name, value in usual.items():
        if value == chosen.get(name) or (name.startswith("generation.") and not writes):  # nothing to tell
            chosen.pop(name, None)
    if not chosen:
        return ""
    values = ", ".join(f"{name} {show_value(value)}" for name, value in chosen.items())
    of = f" ({texts})" if texts and {"tokenizer.type", "generation.metrics"} & chosen.keys() else ""
    return f"Chosen for {pairs:,} training pairs{of} and this device, as the recipe leaves it open: {values}."
