"""Models of ours as stock models of transformers, and those as ours: MarianMT (OPUS-MT), PEGASUS, Blenderbot, M2M100.

Both ways weights keep their numbers and get another order (see `families.py`), so that a model that goes there and
back is bit by bit what it was.
"""

from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_fun_transformer import FunTransformerConfig
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration
from ..positions import SinusoidalPositions
from ..tokenization_fun_transformer import FunTransformerTokenizer
from .families import ACTIVATIONS, FAMILIES, SAME_FIELDS, find_family, known_family, reorder, sines_first
from .stock_tokenizer import is_ours

EMBEDDING, HEAD, SHARED = "model.{}.embed_tokens.weight", "lm_head.weight", "model.shared.weight"
POSITIONS = "model.{}.embed_positions.weight"
STACKS = ("encoder", "decoder")
LEAST_POSITIONS = 1024  # of a table of sinusoids: ours have no end


@torch.no_grad()
def to_marian(model: PreTrainedModel) -> Any:
    """Make a stock model of transformers that computes the same.

    Args:
        model: A `FunTransformerForConditionalGeneration`.

    Returns:
        A `MarianMTModel`; where norms come before the sublayers, a `PegasusForConditionalGeneration`, or with learned
        positions a `BlenderbotForConditionalGeneration`. In eval mode, of the same dtype, with the generation config.

    Raises:
        ValueError: No class of transformers is the same; with the reason.
    """
    check_exportable(model)
    ours: Any = model.config
    name = find_family(ours)
    is_sinusoidal = FAMILIES[name].position_embedding_type == "sinusoidal"
    order = sines_first(ours.d_model) if is_sinusoidal else None
    stock = getattr(transformers, FAMILIES[name].model_class)(config_of(ours, name)).to(model.dtype).eval()
    weights = {
        name.replace(".feed_forward.", "."): reorder(name, value, order) for name, value in on_cpu(model).items()
    }
    constants = stock.state_dict()  # sinusoids, and a bias of zeros
    if SHARED in constants:
        weights[SHARED] = weights[EMBEDDING.format("encoder")]
    kept = {name for name in constants if name == "final_logits_bias" or (is_sinusoidal and "positions" in name)}
    stock.load_state_dict({name: constants[name] for name in kept} | weights)
    stock.generation_config = plain_generation(model.generation_config)
    return stock


def on_cpu(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights of a model, which stays where it is."""
    return {name: value.cpu() for name, value in model.state_dict().items()}


def check_exportable(model: PreTrainedModel) -> None:
    """Refuse what has no stock model of transformers.

    Raises:
        ValueError: With the reason.
    """
    if not isinstance(model, FunTransformerForConditionalGeneration):
        raise ValueError(
            f"A {type(model).__name__} is no FunTransformerForConditionalGeneration, the only one that is a Marian "
            "model in other words."
        )
    find_family(model.config)


def config_of(ours: FunTransformerConfig, name: str) -> Any:
    """Return the configuration of the stock model."""
    fields = {field: getattr(ours, field) for field in SAME_FIELDS}
    if FAMILIES[name].has_two_vocabularies:
        fields["share_encoder_decoder_embeddings"] = ours.share_encoder_decoder_embeddings
        fields["decoder_vocab_size"] = ours.decoder_vocab_size
    else:  # tied are all three or none; of an embedding that two share there are then two equal ones
        fields["tie_word_embeddings"] = ours.tie_word_embeddings and ours.share_encoder_decoder_embeddings
    if FAMILIES[name].position_embedding_type == "sinusoidal":
        fields["max_position_embeddings"] = max(ours.max_position_embeddings, LEAST_POSITIONS)
    config_class = getattr(transformers, FAMILIES[name].model_class).config_class
    return config_class(**fields, label_smoothing=ours.label_smoothing, forced_eos_token_id=None)


def plain_generation(config: GenerationConfig) -> GenerationConfig:
    """Return a generation config without what only our package understands."""
    known = vars(GenerationConfig())
    return GenerationConfig(**{name: value for name, value in config.to_diff_dict().items() if name in known})


@torch.no_grad()
def from_marian(model: PreTrainedModel) -> FunTransformerForConditionalGeneration:
    """Make a model of ours that computes what a stock model of transformers does.

    Args:
        model: A `MarianMTModel`, `PegasusForConditionalGeneration`, `BlenderbotForConditionalGeneration` or
            `M2M100ForConditionalGeneration` (NLLB). A bias of its logits becomes part of other weights: the output
            layer is then no longer the embedding. Sinusoids that are not the paper's become learned positions.

    Returns:
        The model in eval mode, of the same dtype, with the generation config.

    Raises:
        ValueError: None of ours is the same; with the reason.
    """
    theirs: Any = model
    if not hasattr(theirs, "lm_head"):
        raise ValueError(f"A {type(model).__name__} has no output layer. Load it with AutoModelForSeq2SeqLM.")
    family = known_family(theirs.config.model_type)
    weights = {name: value for name, value in on_cpu(theirs).items() if name != SHARED}
    bias = weights.pop("final_logits_bias", None)
    tables = {stack: position_table(theirs, stack) for stack in STACKS}
    is_sinusoidal = all(map(is_paper_table, tables.values()))
    for stack, table in tables.items():
        weights.pop(POSITIONS.format(stack), None)
        if not is_sinusoidal:
            weights[POSITIONS.format(stack)] = table
    order = torch.argsort(sines_first(theirs.config.d_model)) if is_sinusoidal else None
    weights = {name: reorder(name, value, order) for name, value in weights.items()}
    if bias is not None and bias.any():
        fold_bias(weights, last_norm(theirs.config, family.norm_position), bias.flatten())
    config = config_from(theirs.config, weights)
    config.norm_position = family.norm_position
    config.position_embedding_type = "sinusoidal" if is_sinusoidal else "learned"
    config.max_position_embeddings = len(tables["decoder"])
    ours = FunTransformerForConditionalGeneration(config).to(theirs.dtype).eval()
    ours.load_state_dict({name.replace(".fc", ".feed_forward.fc"): value for name, value in weights.items()})
    ours.generation_config = GenerationConfig(**theirs.generation_config.to_diff_dict())
    return ours


def config_from(theirs: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> FunTransformerConfig:
    """Return our configuration; which embeddings are one is seen by the weights."""
    fields = {field: getattr(theirs, field, None) for field in SAME_FIELDS}
    activation = str(fields["activation_function"])
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"The model has activation_function={activation}, and ours know {', '.join(ACTIVATIONS)} alone."
        )
    source, target, output = (weights[name] for name in (*map(EMBEDDING.format, STACKS), HEAD))
    return FunTransformerConfig(
        **fields
        | {
            "activation_function": ACTIVATIONS[activation],
            "decoder_vocab_size": len(target),
            "share_encoder_decoder_embeddings": torch.equal(source, target),
            "tie_word_embeddings": torch.equal(target, output),
            "label_smoothing": getattr(theirs, "label_smoothing", 0.1),
        }
    )


def position_table(model: Any, stack: str) -> torch.Tensor:
    """Return what a stack of a stock model adds to the first, second, ... embedding, (positions, d_model)."""
    positions = model.get_submodule(f"model.{stack}.embed_positions")
    if not hasattr(positions, "weights"):
        return positions.weight
    first = positions.padding_idx + 1  # M2M100 counts from there
    return positions.weights[first : first + model.config.max_position_embeddings]


def is_paper_table(table: torch.Tensor) -> bool:
    """Whether a table, (positions, d_model), holds the paper's sinusoids, all sines first."""
    count, d_model = table.shape
    if d_model % 2:
        return False
    config = FunTransformerConfig(d_model=d_model, encoder_attention_heads=1, decoder_attention_heads=1)
    paper = SinusoidalPositions(config, 1, False)
    expected = paper(torch.arange(count), count)[:, sines_first(d_model)]  # (positions, d_model)
    return torch.allclose(table.float(), expected, atol=2e-3)  # half-precision tables are coarse


def last_norm(config: PreTrainedConfig, norm_position: str) -> str:
    """Return the name of the norm that the output layer reads."""
    if norm_position == "pre":
        return "model.decoder.layer_norm"
    return f"model.decoder.layers.{config.decoder_layers - 1}.final_layer_norm"


def fold_bias(weights: dict[str, torch.Tensor], norm: str, bias: torch.Tensor) -> None:
    """Change the last norm and the output layer so that logits have a bias: W' h' = W h + b.

    A norm gives h = gain * n + shift, where the sum of n is 0. So the sum of h / gain is the same number for all h,
    and a multiple of it can be any constant. The shift grows by +-gain first, so that this number, c, is never small:

        h' = h +- gain,  c = sum(h' / gain),  W' = W + a (1 / gain)^T,  a = (b -+ W gain) / c

    Args:
        weights: Changed in place; the output layer's is no longer the embedding.
        norm: Name of the norm.
        bias: (decoder_vocab_size,).

    Raises:
        ValueError: The norm switches a feature off.
    """
    gain, shift, output = (weights[name].double() for name in (f"{norm}.weight", f"{norm}.bias", HEAD))
    if bool((gain == 0).any()):
        raise ValueError(
            f"final_logits_bias is not 0 and cannot be folded into other weights: {norm} has a gain of 0."
        )
    constant = (shift / gain).sum()
    added = gain if constant >= 0 else -gain  # (d_model,)
    scale = (bias.double() - output @ added) / ((shift + added) / gain).sum()  # (decoder_vocab_size,)
    weights[HEAD] = (output + torch.outer(scale, 1 / gain)).to(bias.dtype)
    weights[f"{norm}.bias"] = (shift + added).to(bias.dtype)


def read_marian(source: str) -> tuple[FunTransformerForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load a stock model of transformers, in a folder or on the Hub, as a model of ours.

    Args:
        source: Folder or name of a MarianMT (OPUS-MT), PEGASUS, Blenderbot or M2M100 (NLLB) model.

    Returns:
        The model in float32, and its tokenizer: ours where the model was one of ours, otherwise the stock one.

    Raises:
        ValueError: None of ours is the same, or weights are missing.
        ImportError: The tokenizer needs a library.
        OSError: There is no such model.
    """
    config, _ = PreTrainedConfig.get_config_dict(source)
    family = known_family(config.get("model_type", ""))
    model_class: Any = getattr(transformers, family.model_class)
    model, report = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{source} lacks weights of a {family.model_class}: {', '.join(missing[:4])}.")
    return from_marian(model), read_tokenizer(source)


def read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a stock model: ours, where an export of ours wrote it."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except ImportError as error:
        raise ImportError(
            f"The tokenizer of {source} needs a library: pip install sentencepiece ({error})", name="sentencepiece"
        ) from error
    if is_ours(tokenizer):
        return FunTransformerTokenizer.from_pretrained(source)
    return tokenizer
