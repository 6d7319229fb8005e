"""Models of ours as stock models of transformers, and those as ours: MarianMT (OPUS-MT), PEGASUS, Blenderbot, M2M100.

Both ways weights keep their numbers and get another order (see `families.py`), so that a model that goes there and
back is bit by bit what it was.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ..configuration_fun_transformer import FunTransformerConfig
from ..frontends import refuse_features
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration
from ..tokenization_fun_transformer import FunTransformerTokenizer
from .families import (
    ACTIVATIONS,
    FAMILIES,
    ONLY_TO_OURS,
    REASONS,
    SAME_FIELDS,
    find_family,
    known_family,
    reorder,
    sines_first,
)
from .source import Converted, Options
from .stock_tokenizer import is_ours
from .weights import build_model, is_sinusoidal, some

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
    refuse_features(model.config, "MarianMTModel")
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
    stock: Any = model
    family = known_family(stock.config.model_type)
    if not hasattr(stock, "lm_head"):
        raise ValueError(f"A {type(model).__name__} has no output layer. Load it with AutoModelForSeq2SeqLM.")
    weights = {name: value for name, value in on_cpu(stock).items() if name != SHARED}
    bias = weights.pop("final_logits_bias", None)
    tables = {POSITIONS.format(stack): position_table(stock, stack).cpu() for stack in STACKS}
    order: torch.Tensor | None = torch.argsort(sines_first(stock.config.d_model))
    if all(is_sinusoidal(reorder(name, table, order)) for name, table in tables.items()):
        weights = {name: value for name, value in weights.items() if name not in tables}
        positions = "sinusoidal"
    else:
        weights |= tables
        order, positions = None, "learned"
    config = config_from(stock.config, weights)
    config.norm_position, config.position_embedding_type = family.norm_position, positions
    config.max_position_embeddings = len(tables[POSITIONS.format("decoder")])
    renamed = {
        re.sub(r"\.(fc\d)\.", r".feed_forward.\1.", name): reorder(name, value, order)
        for name, value in weights.items()
    }
    ours = build_model(config, renamed, None if bias is None else bias.flatten()).to(stock.dtype)
    ours.generation_config = GenerationConfig(**stock.generation_config.to_diff_dict())
    return ours


def config_from(theirs: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> FunTransformerConfig:
    """Return our configuration; which embeddings are one is seen by the weights.

    Raises:
        ValueError: Ours do not know the activation.
    """
    fields = {field: getattr(theirs, field, None) for field in SAME_FIELDS}
    activation = str(fields["activation_function"])
    if activation not in ACTIVATIONS:
        raise ValueError(f"The model has activation_function={activation}. Ours know {', '.join(ACTIVATIONS)}.")
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
    stock = load_stock(source)
    return from_marian(stock), read_tokenizer(source, stock.config.max_position_embeddings)


def load_stock(source: str) -> Any:
    """Load a stock model in float32, if ours can be the same.

    Raises:
        ValueError: None of ours is the same, or weights are missing.
    """
    config, _ = PreTrainedConfig.get_config_dict(source)
    family = known_family(config.get("model_type", ""))
    model_class: Any = getattr(transformers, family.model_class)
    try:
        model, report = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except (OSError, ImportError):
        raise
    except Exception as error:  # of many types: safetensors', pickle's, torch's
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"The weights of {source} cannot be read: {reason}. Copy or download them again.") from error
    if report["missing_keys"]:
        raise ValueError(f"{source} lacks weights of a {family.model_class}: {some(report['missing_keys'])}.")
    return model.eval()


def read_tokenizer(source: str, longest: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a stock model: ours, where an export of ours wrote it.

    Args:
        source: Folder or name.
        longest: Positions of the stock model; ours may have no end, so that such a limit of ours goes again.

    Raises:
        ImportError: It needs a library.
        ValueError: Its files are damaged, or some are missing.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except ImportError as error:
        raise ImportError(
            f"The tokenizer of {source} needs sentencepiece, here and wherever the model is used: pip install "
            f"sentencepiece ({error})",
            name="sentencepiece",
        ) from error
    except OSError:
        raise
    except Exception as error:  # of many types, by what is missing
        raise ValueError(
            f"The tokenizer of {source} cannot be read: tokenizer_config.json or another of its files is missing or "
            "damaged. Copy the whole folder again, or give --tokenizer another folder with it."
        ) from error
    if not is_ours(tokenizer):
        return tokenizer
    limit = VERY_LARGE_INTEGER if tokenizer.model_max_length == longest else tokenizer.model_max_length
    return FunTransformerTokenizer.from_pretrained(source, model_max_length=limit)


def is_source(path: Path) -> bool:
    """Tell whether a folder holds a stock model, ours or one that looks like it."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return False
    return isinstance(config, dict) and config.get("model_type") in FAMILIES | ONLY_TO_OURS | REASONS


def read(path: Path, options: Options) -> Converted:
    """Convert a stock model.

    Raises:
        ValueError: None of ours is the same, or weights are missing.
        ImportError: The tokenizer needs a library.
    """
    stock = load_stock(str(path))
    model = from_marian(stock)
    notes = []
    if stock.config.tie_word_embeddings and not model.config.tie_word_embeddings:
        notes.append("the bias of its logits is in the output layer now, which is no longer the embedding.")
    if model.config.position_embedding_type != "sinusoidal" and stock.config.model_type != "blenderbot":
        longest = model.config.max_position_embeddings
        notes.append(f"its positions are not the paper's sinusoids, and are learned ones now, {longest} of them.")

    def run(source_ids: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return stock(input_ids=source_ids, decoder_input_ids=target_ids).logits

    place = options.tokenizer[0] if options.tokenizer else str(path)
    return Converted(model, read_tokenizer(place, stock.config.max_position_embeddings), notes, run=run)
