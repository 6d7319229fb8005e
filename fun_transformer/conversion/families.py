"""Which classes of transformers are the Transformer of this package, and which only look like it.

    norms after each sublayer, sinusoids             MarianMTModel (OPUS-MT)
    norms before each sublayer, sinusoids            PegasusForConditionalGeneration
    norms before each sublayer, learned positions    BlenderbotForConditionalGeneration

Their layers have the same formulas and nearly the same names. What differs is the order of the features: in the
paper's sinusoids (section 3.5) sine and cosine take turns, Marian and PEGASUS have all sines first. Nothing in a
Transformer knows the order of the features in its residual stream, so that a permutation of d_model (`sines_first`)
makes one model of the other: of all that reads features or writes them.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..configuration_fun_transformer import FunTransformerConfig

# Parts that read features in their last dimension, and have biases that are none; all others write features.
LAYER_NORM_EPS = 1e-5  # of these families, whose configs do not say it
READERS = {"embed_tokens", "shared", "embed_positions", "lm_head", "q_proj", "k_proj", "v_proj", "fc1"}
SAME_FIELDS = (  # of the configurations
    *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim"),
    *("encoder_attention_heads", "decoder_attention_heads", "dropout", "attention_dropout", "activation_dropout"),
    *("scale_embedding", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "use_cache"),
    *("max_position_embeddings", "activation_function", "tie_word_embeddings"),
)
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}  # their names -> ours


@dataclass(frozen=True)
class Family:
    """A family of models of transformers.

    Attributes:
        model_class: The class with an output layer.
        norm_position: As in our configuration.
        position_embedding_type: As in our configuration.
        has_two_vocabularies: Source and target may have embeddings of their own.
    """

    model_class: str
    norm_position: Literal["post", "pre"]
    position_embedding_type: str
    has_two_vocabularies: bool = False


FAMILIES = {
    "marian": Family("MarianMTModel", "post", "sinusoidal", has_two_vocabularies=True),
    "pegasus": Family("PegasusForConditionalGeneration", "pre", "sinusoidal"),
    "blenderbot": Family("BlenderbotForConditionalGeneration", "pre", "learned"),
}
# Their sinusoids are not the paper's, and so become learned positions here; there is no way back.
ONLY_TO_OURS = {"m2m_100": Family("M2M100ForConditionalGeneration", "pre", "learned")}

NORM_OF_EMBEDDINGS = "normalises embeddings before the first layer, which no model here does"
REASONS = {  # why others are none of ours
    "bart": NORM_OF_EMBEDDINGS,
    "mbart": NORM_OF_EMBEDDINGS,
    "plbart": NORM_OF_EMBEDDINGS,
    "blenderbot-small": NORM_OF_EMBEDDINGS,
    "bigbird_pegasus": NORM_OF_EMBEDDINGS,
    "fsmt": "counts positions from the number of its padding token, by sinusoids that are not the paper's",
    "t5": "has relative positions and norms without a mean",
    "mt5": "has relative positions and norms without a mean",
    "umt5": "has relative positions and norms without a mean",
}


def find_family(config: FunTransformerConfig) -> str:
    """Return the family of transformers that a model of ours is the same as.

    Args:
        config: Of a `FunTransformerForConditionalGeneration`.

    Returns:
        A name of `FAMILIES`, which is a `model_type` of transformers.

    Raises:
        ValueError: There is none; with the reason.
    """
    others = {*config.stack_layer_types("encoder"), *config.stack_layer_types("decoder")} - {"full_attention"}
    if others:
        refuse(f"has layers of {', '.join(sorted(others))}, and theirs are of full attention")
    if config.position_embedding_type not in ("sinusoidal", "learned"):
        refuse(f"has position_embedding_type={config.position_embedding_type}, and theirs is sinusoidal or learned")
    if config.copy_attention:
        refuse("copies tokens of the source (copy_attention), and theirs do not")
    if config.has_final_norm() != (config.norm_position == "pre"):
        refuse(f"has final_layer_norm={config.final_layer_norm} with norm_position={config.norm_position}")
    if config.layer_norm_eps != LAYER_NORM_EPS:
        refuse(f"has layer_norm_eps={config.layer_norm_eps}, and theirs is always {LAYER_NORM_EPS}")
    wanted = (config.norm_position, config.position_embedding_type)
    found = [
        name for name, other in FAMILIES.items() if (other.norm_position, other.position_embedding_type) == wanted
    ]
    if not found:
        refuse("has norm_position=post with learned positions; BART, which has both, normalises embeddings as well")
    family = FAMILIES[found[0]]
    if not family.has_two_vocabularies and config.decoder_vocab_size != config.vocab_size:
        refuse(
            f"has norm_position={config.norm_position} and vocabularies of {config.vocab_size} and "
            f"{config.decoder_vocab_size} tokens: {family.model_class} has one vocabulary for both sides"
        )
    return found[0]


def refuse(reason: str) -> None:
    """Say why a model of ours is none of theirs.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"No class of transformers computes what this model does: it {reason}. Publish it with its own code "
        "(fun-transformer push), or choose another format."
    )


def known_family(model_type: str) -> Family:
    """Return the family of a model of transformers.

    Raises:
        ValueError: It is none of ours; with the reason.
    """
    families = FAMILIES | ONLY_TO_OURS
    if model_type in families:
        return families[model_type]
    reason = REASONS.get(model_type)
    why = f"a {model_type} {reason}" if reason else f"its type is {model_type or 'not named'}"
    raise ValueError(f"The model cannot become one of ours: {why}. What can: {', '.join(families)}.")


def sines_first(d_model: int) -> torch.Tensor:
    """Return where each feature of Marian comes from, (d_model,): ours at even places, then those at odd ones."""
    features = torch.arange(d_model)
    return torch.cat([features[::2], features[1::2]])  # (d_model,)


def reorder(name: str, value: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """Put the features that a weight reads or writes in another order.

    Args:
        name: Of the weight.
        value: (..., d_model) of those that read features, (d_model, ...) of those that write them.
        order: (d_model,), as in `sines_first`; None leaves all as it is.

    Returns:
        The same shape.
    """
    part, kind = name.split(".")[-2:]
    if order is None or (part in READERS and kind == "bias"):
        return value
    return value[..., order] if part in READERS else value[order]
