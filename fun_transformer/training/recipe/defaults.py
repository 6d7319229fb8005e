"""What a recipe leaves open, chosen by the size of the corpus: one table, and what was chosen is said and written.

A large model learns a small corpus by heart, and a large vocabulary leaves a small corpus few examples of each token.
The values follow published practice (docs/training.md says which): the paper for millions of pairs (Vaswani et al.
2017), the customary IWSLT setting for hundreds of thousands (Ott et al. 2019), and for less the studies of Sennrich
and Zhang (2019) and of Araabi and Monz (2020).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .arguments import RunArguments

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
PATIENCE = 5  # evaluations without a better one; there is one an epoch
EVALUATE_EVERY = (50, 5_000)  # steps: not more and not less often


def scale_for(pairs: int) -> Scale:
    """The row of the table for a number of training pairs."""
    return next(scale for scale in SCALES if pairs <= scale.pairs)


def model_fields(scale: Scale, model_type: str) -> dict[str, Any]:
    """Fields of a model's config that say how large it is."""
    fields: dict[str, Any] = {"d_model": scale.d_model}
    for side in ("encoder", "decoder"):
        fields[f"{side}_layers"] = scale.layers
        if model_type == "fun_transformer":
            fields |= {f"{side}_attention_heads": scale.heads, f"{side}_ffn_dim": scale.ffn_dim}
    return fields


def choose(arguments: RunArguments, pairs: int) -> dict[str, Any]:
    """Values for what nobody has named, by dotted name; the arguments are left as they are.

    A model whose size the recipe names in part is left alone, and so is a run whose length it names: only where there
    is no limit at all does a run end by patience, or after `num_train_epochs`.

    Args:
        arguments: The recipe; `given` has the names that stand in it or on the command line.
        pairs: Number of training pairs.
    """
    scale, training = scale_for(pairs), arguments.training
    chosen: dict[str, Any] = {}
    if not arguments.tokenizer.path and arguments.tokenizer.type in ("bpe", "unigram"):
        chosen["tokenizer.vocab_size"] = scale.vocab_size
    size = model_fields(scale, arguments.model.get("model_type") or "fun_transformer")
    if "config" not in arguments.model:
        if not size.keys() & arguments.model.keys():
            chosen |= {f"model.{name}": value for name, value in size.items()}
        chosen["model.dropout"] = scale.dropout
    for name in ("batch_tokens", "gradient_accumulation_steps", "warmup_steps"):
        chosen[f"training.{name}"] = getattr(scale, name)
    if training.schedule != "noam":
        chosen["training.learning_rate"] = scale.learning_rate
    if not any(f"training.{name}" in arguments.given for name in LIMITS):
        chosen |= {
            "training.max_steps": None,
            "training.num_train_epochs": scale.num_train_epochs,
            "training.patience": PATIENCE,
        }
    return {name: value for name, value in chosen.items() if name not in arguments.given}


def choose_rhythm(arguments: RunArguments, tokens: int, processes: int) -> dict[str, Any]:
    """How often to evaluate and to save where nobody has said it: once an epoch.

    Args:
        arguments: The recipe, with all else chosen.
        tokens: Source and target tokens of the training split.
        processes: Number of processes.
    """
    training, (least, most) = arguments.training, EVALUATE_EVERY
    steps = round(tokens / (training.batch_tokens * training.gradient_accumulation_steps * processes))
    every = min(max(steps, least), most)
    names = ("training.eval_steps", "training.save_steps")
    return {name: every for name in names if name not in arguments.given}


def fill(arguments: RunArguments, chosen: dict[str, Any]) -> RunArguments:
    """The arguments with values for dotted names."""
    sections: dict[str, Any] = {}
    for name, value in chosen.items():
        section, _, key = name.partition(".")
        current = sections.setdefault(section, getattr(arguments, section))
        sections[section] = (
            {**current, key: value} if isinstance(current, dict) else dataclasses.replace(current, **{key: value})
        )
    return dataclasses.replace(arguments, **sections)


def show(chosen: dict[str, Any], pairs: int) -> str:
    """What was chosen, in words."""
    if not chosen:
        return ""
    values = ", ".join(f"{name} {'none' if value is None else f'{value:,}'}" for name, value in chosen.items())
    return f"Chosen for {pairs:,} training pairs, as the recipe says nothing of them: {values}."


def resolve(arguments, pairs, device):
    chosen = choose(arguments, pairs)
    from .model_config import choose_packing

    chosen |= choose_packing(arguments, device)
    return fill(arguments, chosen)


def resolve_rhythm(arguments, tokens, processes):
    return fill(arguments, choose_rhythm(arguments, tokens, processes))


def describe_choices(before, after, pairs):
    import yaml

    from ..run.resuming import flat_values

    a, b = (flat_values(yaml.safe_load(x.to_yaml())) for x in (before, after))
    return show({name: value for name, value in b.items() if a.get(name) != value}, pairs)
