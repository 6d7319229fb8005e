"""What "auto" means where `texts.py` has recognised words or symbols: values by the number of rows, from a table.

Words are short, and a few hundred to some thousand of them are all that many languages have. By the table for
sentences 800 words would have 600 steps, two thirds of them warm-up, and the tenth that is held out would choose the
model. Here the learning rate falls to zero in a fixed number of epochs, and the last model is the final one.
docs/training.md says what was measured (`benchmarks.small_data`).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .arguments import AUTO, RunArguments
from .base import starts_from_model
from .defaults import Scale, choose_limits, choose_model, choose_rate, fill, size_fields
from .model_config import model_type_of
from .texts import SYMBOLS


@dataclass(frozen=True)
class WordScale(Scale):
    """Good values for words of a number."""

    position_embedding_type: str


SCALES = (
    #         rows    vocab   d_model L  H  ffn  drop batch tokens x  rate  warm-up epochs
    WordScale(6_000, SYMBOLS, 128, 3, 4, 512, 0.3, 1_024, 1, 2e-3, 100, 35, "rotary"),
    WordScale(20_000, SYMBOLS, 128, 3, 4, 512, 0.2, 2_048, 1, 2e-3, 200, 30, "sinusoidal"),
)
LEAST_ROWS = 80_000  # that a run reads, the same ones again and again: few rows want more epochs
LEAST_NEW_TOKENS = 32  # that a model may generate; else twice the longest target


def scale_for_words(pairs: int) -> WordScale:
    """Return the row of the table for a number of training pairs, with as many epochs as so few want."""
    scale = next(scale for scale in SCALES if pairs <= scale.pairs)
    epochs = max(scale.num_train_epochs, -(-LEAST_ROWS // pairs))
    return dataclasses.replace(scale, num_train_epochs=epochs)


def are_recognised(given: RunArguments, arguments: RunArguments) -> bool:
    """Return whether `texts.py` has chosen letters or symbols as tokens.

    Args:
        given: The recipe as it was given.
        arguments: What `resolve_texts` made of it.
    """
    is_chosen = given.tokenizer.type == AUTO and arguments.tokenizer.type in ("char", "word")
    return is_chosen and not starts_from_model(given)


def longest_target(targets: Sequence[str], arguments: RunArguments) -> int:
    """Return how many tokens the longest of some targets has."""
    tokenizer = arguments.tokenizer
    by_symbols = (tokenizer.target_type or tokenizer.type) == "word"
    return max(len(target.split()) if by_symbols else len(target) for target in targets)


def choose_word_model(arguments: RunArguments, scale: WordScale) -> dict[str, Any]:
    """Return the recipe's section `model` with sizes; where it names none and no layers, with positions and copying.

    Copying needs one vocabulary for both sides.
    """
    model = choose_model(arguments, scale)
    named = {*size_fields(scale, "fun_transformer"), "encoder_layer_types", "decoder_layer_types", "config"}
    if not named & arguments.model.keys() and model_type_of(arguments) == "fun_transformer":
        copying = {} if arguments.tokenizer.target_type else {"copy_attention": True}
        return {"position_embedding_type": scale.position_embedding_type} | copying | model
    return model


def resolve_words(given: RunArguments, arguments: RunArguments, targets: Sequence[str], pairs: int) -> RunArguments:
    """Return the recipe with sizes, course and lengths in place of "auto"; as it is where no words are recognised.

    What the recipe names stays. Where it names what chooses the best model, or when to stop early, the best one is the
    final one as ever.

    Args:
        given: The recipe as it was given.
        arguments: What `resolve_texts` made of it; it is left as it is.
        targets: Examples of the training targets.
        pairs: Number of training pairs.
    """
    if not are_recognised(given, arguments) or pairs > SCALES[-1].pairs:
        return arguments
    scale, training = scale_for_words(pairs), arguments.training
    schedule = "linear" if training.schedule == AUTO else training.schedule
    chooses_best = training.metric_for_best_model != "loss" or training.patience not in (AUTO, None)
    falls_to_zero = schedule in ("linear", "cosine")
    return dataclasses.replace(
        arguments,
        model=choose_word_model(arguments, scale),
        tokenizer=fill(arguments.tokenizer, min_frequency=1),
        training=fill(
            training,
            **{**choose_limits(training, scale), "patience": None},
            batch_tokens=scale.batch_tokens,
            gradient_accumulation_steps=scale.gradient_accumulation_steps,
            schedule=schedule,
            learning_rate=choose_rate(training, schedule, scale.learning_rate),
            warmup_steps=scale.warmup_steps,
            average="last" if falls_to_zero and not chooses_best else "best",
        ),
        generation=fill(
            arguments.generation, max_new_tokens=max(LEAST_NEW_TOKENS, 2 * longest_target(targets, arguments))
        ),
    )
