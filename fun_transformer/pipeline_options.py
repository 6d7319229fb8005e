"""The keyword arguments of a pipeline: which step each belongs to, what does not go together, what rules a search."""

import copy
import os
from importlib import import_module

from transformers import GenerationConfig

# What neither the call nor the model's own generation config says.
DEFAULT_GENERATION = {"max_new_tokens": 256, "num_beams": 4}
LENGTHS = (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens"))  # with and without the start token
# The steps that keyword arguments belong to; all others are for `generate`.
OF_PREPROCESS = ("truncation", "long_text", "max_source_length", "guard", "mbr", "protect")
OF_FORWARD = ("return_scores", "return_attention", "return_alignments", "return_finished", "glossary")
OF_POSTPROCESS = ("return_tensors", "clean_up_tokenization_spaces")
LONG_TEXT = ("sentences", "split", "truncate", "error")


def home(module: str, needed_by: str):
    """Return a module of the package, which does not travel with a model.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        return import_module(f"fun_transformer.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(f"{needed_by} needs the package: pip install fun-transformer") from error


def sort_options(options: dict) -> tuple[dict, dict, dict]:
    """Sort keyword arguments by the step they belong to: (preprocess, forward, postprocess).

    Raises:
        ValueError: One is unknown, or some do not go together.
    """
    options = dict(options)
    preprocess, forward, postprocess = (
        {name: options.pop(name, None) for name in names} for names in (OF_PREPROCESS, OF_FORWARD, OF_POSTPROCESS)
    )
    if preprocess["long_text"] not in (None, *LONG_TEXT):
        known = ", ".join(map(repr, LONG_TEXT))
        raise ValueError(f"long_text={preprocess['long_text']!r} is unknown. Choose one of {known}.")
    check_counts(options | {"max_source_length": preprocess["max_source_length"]})
    if preprocess["guard"] and postprocess["return_tensors"]:
        raise ValueError("guard=True looks at texts and return_tensors=True returns none. Leave one of them out.")
    forward["glossary"] = glossary = read_glossary(forward["glossary"])
    preprocess["keep_text"] = forward["return_alignments"] or glossary is not None or None
    groups, penalty = options.pop("num_beam_groups", None), options.pop("diversity_penalty", None)
    if groups:
        search = home("decoding.diverse", "num_beam_groups=...").DiverseBeamSearch
        options["custom_generate"] = search(groups, **({} if penalty is None else {"penalty": penalty}))
    elif penalty is not None:
        raise ValueError(f"diversity_penalty={penalty} is for groups of beams: give num_beam_groups too.")
    if groups and (glossary is not None or preprocess["protect"]):
        raise ValueError("A search in groups of beams forces no terms: leave out num_beam_groups, or the terms.")
    return without_none(preprocess), without_none(forward) | over({}, options), without_none(postprocess)


def read_glossary(glossary):
    """Return a glossary that is given as itself, as a file or as a dictionary; None for None."""
    is_file = isinstance(glossary, (str, os.PathLike))
    if glossary is None or (hasattr(glossary, "find") and not is_file):
        return glossary
    terms = home("decoding.glossary", "glossary=...").Glossary
    return terms.load(glossary) if is_file else terms(glossary)


def without_none(params: dict) -> dict:
    """Return the parameters that are given."""
    return {name: value for name, value in params.items() if value is not None}


def over(lower: dict, upper: dict) -> dict:
    """Return the parameters of both, where those of `upper` win.

    `generate` would take a number of new tokens before a length, no matter who gave it: a length that is given alone
    unsets the number of new tokens below it.
    """
    unset = {tokens: None for length, tokens in LENGTHS if upper.get(length) and upper.get(tokens) is None}
    return lower | upper | unset


def check_counts(params: dict):
    """Refuse a search that could find nothing.

    Raises:
        ValueError: A number is below 1.
    """
    for name in ("num_beams", "num_return_sequences", "max_new_tokens", "max_length", "max_source_length"):
        value = params.get(name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} leaves nothing to find. Give 1 or more.")


def check_mbr(params: dict):
    """Refuse what does not go together with samples of which one is taken.

    Raises:
        ValueError: Terms are forced, or several sequences are asked for.
    """
    if not params.get("mbr"):
        return
    if params.get("glossary") is not None or params.get("protect"):
        raise ValueError(
            f"mbr={params['mbr']} samples, which forces no terms: leave out mbr, or glossary and protect."
        )
    if (params.get("num_return_sequences") or 1) > 1:
        raise ValueError(
            f"mbr={params['mbr']} takes one of its samples, but num_return_sequences={params['num_return_sequences']} "
            "asks for more: leave one of them out."
        )


def max_length_of(params: dict) -> tuple[str, int]:
    """Return the limit that rules, as `generate` decides: `max_new_tokens` before `max_length`."""
    name = "max_length" if params.get("max_new_tokens") is None else "max_new_tokens"
    return name, params[name]


def ruling_params(generate_kwargs: dict, task_params: dict, own: GenerationConfig) -> dict:
    """Return what rules a search: the call's parameters, over its generation config or the task's, over the model's.

    Args:
        generate_kwargs: Of the call.
        task_params: Of the task, as old models keep them.
        own: The model's.
    """
    config = generate_kwargs.get("generation_config")
    middle = task_params if config is None else config.to_diff_dict()
    return over(over(own.to_diff_dict(), middle), generate_kwargs)


def position_limit(model) -> int | None:
    """Return how many target positions a model has; None where it has one for any, as sinusoids and T5's bias do."""
    if hasattr(model, "position_limit"):  # of several models
        return model.position_limit
    config = model.config
    if getattr(config, "position_embedding_type", "learned") in ("sinusoidal", "rotary", "relative"):
        return None
    limits = [getattr(config, f"max_{of}position_embeddings", None) for of in ("decoder_", "target_", "")]
    return next((limit for limit in limits if limit), None)


def fill_generate_kwargs(
    generate_kwargs: dict, task_params: dict, own: GenerationConfig, pad_token_id, limit: int | None = None
) -> dict:
    """Add what neither the call nor the model's generation config says: the task's and our defaults.

    Args:
        generate_kwargs: Of the call.
        task_params: Of the task.
        own: The model's.
        pad_token_id: The tokenizer's.
        limit: Positions that the model has for targets; None for any number.

    Raises:
        ValueError: The call asks for more tokens than that.
    """
    config: GenerationConfig | None = generate_kwargs.get("generation_config")
    if limit and (generate_kwargs.get("max_new_tokens") or 0) > limit:
        raise ValueError(
            f"max_new_tokens={generate_kwargs['max_new_tokens']}, but the model has {limit} positions. Give at most "
            f"{limit}."
        )
    given = ruling_params(generate_kwargs, task_params, own)
    defaults = DEFAULT_GENERATION | {"pad_token_id": pad_token_id}
    sequences = given.get("num_return_sequences") or 1
    defaults["num_beams"] = max(defaults["num_beams"], sequences)
    defaults["max_new_tokens"] = min(defaults["max_new_tokens"], limit or defaults["max_new_tokens"])
    if "max_length" in given:  # `max_new_tokens` would win over it
        del defaults["max_new_tokens"]
    added = {name: value for name, value in defaults.items() if name not in given}
    if config is None:
        wanted = over(over({}, task_params), generate_kwargs)
        is_free = "num_beams" not in generate_kwargs and not given.get("do_sample")
        if is_free and sequences > (given.get("num_beams") or sequences):  # the model's own beams are too few
            wanted["num_beams"] = sequences
        needed = {name for name, value in wanted.items() if value is not None or getattr(own, name) is not None}
        return added | {name: wanted[name] for name in needed}
    config = copy.deepcopy(config)
    config.update(**added)
    for length, new_tokens in LENGTHS:  # `generate` takes what is None here from the model
        if getattr(config, length) is not None and getattr(config, new_tokens) is None:
            setattr(config, new_tokens, max(getattr(config, length) - 1, 0))  # the start token counts in lengths
    return generate_kwargs | {"generation_config": config}
