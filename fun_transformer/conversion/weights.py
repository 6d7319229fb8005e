"""Weights of other tools under our names, and a model made of them that computes the same."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..configuration_fun_transformer import FunTransformerConfig
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration
from ..positions import SinusoidalPositions

SHOWN = 4  # names in a message
LM_HEAD = "lm_head.weight"


def some(names: Iterable[str]) -> str:
    """Return the first names of a list as words."""
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def rename(weights: Mapping[str, torch.Tensor], patterns: Mapping[str, str | None]) -> dict[str, torch.Tensor]:
    """Give weights other names.

    Args:
        weights: By name.
        patterns: Regular expression of a whole name -> new name with groups, or None to leave the weight out. The
            first one that fits counts.

    Returns:
        Weights by their new names.

    Raises:
        ValueError: No pattern fits a name: the model has a part that is not known here.
    """
    renamed, unknown = {}, []
    for name, weight in weights.items():
        for pattern, new in patterns.items():
            if match := re.fullmatch(pattern, name):
                if new is not None:
                    renamed[match.expand(new)] = weight
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"The source has weights that have no place in a model of ours: {some(unknown)}.")
    return renamed


def build_model(
    config: FunTransformerConfig, weights: Mapping[str, torch.Tensor], output_bias: torch.Tensor | None = None
) -> FunTransformerForConditionalGeneration:
    """Make a model of weights that have our names.

    Args:
        config: Of the model.
        weights: In float32. Biases that are missing become zeros; so does a LayerNorm's.
        output_bias: (decoder_vocab_size,), what the source adds to its logits: see `fold_output_bias`.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: Weights are missing, or left over, or have another shape than the config says.
    """
    weights = {name: weight.detach().float() for name, weight in weights.items()}
    if config.share_encoder_decoder_embeddings:  # which some sources save once
        weights.setdefault("model.decoder.embed_tokens.weight", weights["model.encoder.embed_tokens.weight"])
    if output_bias is not None and not output_bias.any():
        output_bias = None
    if output_bias is not None and config.tie_word_embeddings:
        config.tie_word_embeddings = False
        owner = "encoder" if config.share_encoder_decoder_embeddings else "decoder"
        weights.setdefault(LM_HEAD, weights[f"model.{owner}.embed_tokens.weight"])
    model = FunTransformerForConditionalGeneration(config).eval()
    wanted = {name: weight.shape for name, weight in model.state_dict().items()}
    for target in model.get_expanded_tied_weights_keys():
        wanted.pop(target, None)
        weights.pop(target, None)
    for name in wanted.keys() - weights.keys():
        if name.endswith(".bias"):
            weights[name] = torch.zeros(wanted[name])
    check_weights({name: weight.shape for name, weight in weights.items()}, wanted)
    if output_bias is not None:
        fold_output_bias(config, weights, output_bias.detach().float())
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model


def check_weights(found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> None:
    """Compare the shapes of a source's weights with those that a model has.

    Raises:
        ValueError: Weights are missing, left over, or of another shape.
    """
    if missing := wanted.keys() - found.keys():
        raise ValueError(f"The source lacks weights that the model has: {some(missing)}.")
    if left := found.keys() - wanted.keys():
        raise ValueError(f"The source has weights that the model has no place for: {some(left)}.")
    for name, shape in found.items():
        if shape != wanted[name]:
            raise ValueError(
                f"{name} is {tuple(shape)} in the source, and {tuple(wanted[name])} in the model that the settings "
                "describe. Check sizes and vocabularies."
            )


def fold_output_bias(
    config: FunTransformerConfig, weights: dict[str, torch.Tensor], output_bias: torch.Tensor
) -> None:
    """Change weights so that logits without a bias are those with one: W' h' = W h + c.

    The output layer reads h = g * n + b, the last LayerNorm's result, where n has the sum 0. So (1 / g) . h is the
    same number at each position, K = sum_i b_i / g_i, and adding c (1 / g)^T / K to W adds c to the logits. K may be
    small, so first h is moved by u = +-g, which moves K by the width of h to K'; W' = W + (c - W u) (1 / g)^T / K'.

    Args:
        config: Of the model.
        weights: With our names; the output layer must be one of its own. Changed in place.
        output_bias: c, of shape (decoder_vocab_size,).

    Raises:
        ValueError: The stack does not end in a norm, or its norm has a zero.
    """
    norm = "model.decoder.layer_norm"
    if not config.has_final_norm():
        if config.norm_position == "pre":
            raise ValueError("The output layer has a bias, and the decoder ends in no norm: there is no place for it.")
        norm = f"model.decoder.layers.{config.decoder_layers - 1}.final_layer_norm"
    gain = weights[f"{norm}.weight"].double()  # (d_model,)
    shift = weights.get(f"{norm}.bias", torch.zeros_like(gain)).double()  # (d_model,)
    if gain.abs().min() == 0:
        raise ValueError(
            f"The output layer has a bias, but {norm} has a weight of 0, so that there is no place for it."
        )
    output, bias = weights[LM_HEAD].double(), output_bias.double()
    constant = (shift / gain).sum()
    move = gain if constant >= 0 else -gain  # (d_model,)
    moved = constant + (move / gain).sum()
    added = torch.outer((bias - output @ move) / moved, 1 / gain)  # (decoder_vocab_size, d_model)
    weights[LM_HEAD] = (output + added).float()
    weights[f"{norm}.bias"] = (shift + move).float()


def is_sinusoidal(table: torch.Tensor) -> bool:
    """Say whether a table of positions, (positions, d_model), holds the paper's sinusoids, sin and cos in turn."""
    positions, d_model = table.shape
    config = FunTransformerConfig(d_model=d_model, encoder_attention_heads=1, decoder_attention_heads=1)
    expected = SinusoidalPositions(config, 1, False)(torch.arange(positions), positions)
    return torch.allclose(table.float(), expected, atol=2e-3)  # the angles of late positions are large numbers


def split_thirds(
    weights: Mapping[str, torch.Tensor], pattern: str, names: tuple[str, str, str]
) -> dict[str, torch.Tensor]:
    """Split weights that hold queries, keys and values in one, as `torch.nn.MultiheadAttention` does.

    Args:
        weights: By name.
        pattern: Regular expression of such a name; its groups are what comes before and after.
        names: Of the three parts.

    Returns:
        Weights by name, those that were split under `BEFORE + name + AFTER`.
    """
    split: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if match := re.fullmatch(pattern, name):
            parts = zip(names, weight.chunk(3))
            split |= {f"{match[1]}{part}.{match[2]}": value for part, value in parts}
        else:
            split[name] = weight
    return split


def number_of(layers: str, names: Iterable[str]) -> int:
    """Return how many layers there are: one more than the highest number after a prefix such as `encoder.layers.`."""
    found = [int(match[1]) for name in names if (match := re.match(rf"{re.escape(layers)}(\d+)\.", name))]
    return max(found) + 1 if found else 0


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
