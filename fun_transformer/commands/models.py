"""Models of all heads, loaded from a folder or from the Hub, and refused where they are damaged."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..plugins import load_plugins


class Head(NamedTuple):
    """What a kind of model answers.

    Attributes:
        auto_class: The name of the class of transformers that loads such a model.
        endings: Of the names of its classes.
        gives: What it answers, in words.
    """

    auto_class: str
    endings: tuple[str, ...]
    gives: str


TEXT_ENDINGS = ("ForConditionalGeneration", "ForSeq2SeqLM", "MTModel")
HEADS = {  # looked at in this order: a decoder may be called LMHeadModel, and so may an encoder-decoder
    "labels": Head("AutoModelForSequenceClassification", ("ForSequenceClassification",), "a label for a text"),
    "tags": Head("AutoModelForTokenClassification", ("ForTokenClassification",), "a tag for each word"),
    "masked": Head("AutoModelForMaskedLM", ("ForMaskedLM",), "words for the masks in a text"),
    "text": Head("AutoModelForSeq2SeqLM", TEXT_ENDINGS, "a text for a text"),
    "causal": Head("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel"), "the continuation of a text"),
}


def load_model(
    name: str,
    plugins: Iterable[str] = (),
    heads: Sequence[str] = ("text",),
    dtype: str = "auto",
    any_source: bool = False,
):
    """Load model and tokenizer from a folder or from the Hub, after the user's own files.

    Args:
        name: Of the folder, or on the Hub.
        plugins: Python files to run first.
        heads: Those of `HEADS` that can be used.
        dtype: Of its weights, by default as they were saved.
        any_source: Load models that read speech or pictures too.

    Returns:
        The model, its tokenizer, and which of the heads it has.

    Raises:
        OSError: `name` is no folder with a config.json, nor a name on the Hub.
        ValueError: The model is damaged, or has none of these heads.
    """
    import transformers
    from transformers.utils import logging

    from ..frontends import refuse_features
    from ..hub.finding import find_model
    from ..hub.weights import folder_damage, some

    load_plugins(plugins)
    place = find_model(name)
    if damage := folder_damage(Path(place)):
        raise ValueError(f"{name} is damaged: {' '.join(damage)}")
    head = find_head(name, place)
    if head not in heads:
        raise ValueError(
            f"{name} gives {HEADS[head].gives}, not a text for a text. Use: fun-transformer predict {name}"
        )
    auto_class = getattr(transformers, HEADS[head].auto_class)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(place, dtype=dtype, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    except OSError as error:
        if Path(place).exists():
            raise
        raise OSError(f"There is no folder {name} here, and the Hub did not give a model {name}: {error}") from error
    except ImportError:  # names what to install
        raise
    except Exception as error:  # whatever a damaged file makes a library raise
        raise ValueError(f"The model {name} cannot be loaded: {error}") from error
    if not any_source:
        refuse_features(model.config, "This command")
    if report["missing_keys"]:
        raise ValueError(f"{name} lacks weights of a {type(model).__name__}: {some(sorted(report['missing_keys']))}.")
    if bad := [key for key, value in model.named_parameters() if not value.isfinite().all()]:
        raise ValueError(f"{name} has weights that are NaN or infinite: {some(bad)}. Use a model from before that.")
    return model.eval(), tokenizer, head


def load_together(names: Sequence[str], plugins: Iterable[str] = (), heads: Sequence[str] = ("text",), dtype="auto"):
    """Load a model as `load_model` does, or several of one vocabulary that decide each token together.

    Args:
        names: Of the models.
        plugins: As in `load_model`, as are the other arguments.
        heads: Those that can be used.
        dtype: Of the weights.

    Returns:
        The model or an `Ensemble`, the tokenizer, and which of the heads it has.

    Raises:
        OSError: There is no such model.
        ValueError: A model is damaged or of another kind, or the vocabularies differ.
    """
    model, tokenizer, head = load_model(names[0], plugins, heads, dtype)
    if len(names) == 1:
        return model, tokenizer, head
    from ..decoding import Ensemble, check_tokenizers

    loaded = [(model, tokenizer), *(load_model(name, (), heads, dtype)[:2] for name in names[1:])]
    models, tokenizers = zip(*loaded)
    check_tokenizers(tokenizers, names)
    return Ensemble(models), tokenizer, head


def find_head(name: str, place: str) -> str:
    """Return which of `HEADS` a model has: its config names the class; without one, an encoder-decoder gives text.

    Raises:
        ValueError: It has none of them.
    """
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(place)
    architectures = config.get("architectures") or []
    for head, (_, endings, _) in HEADS.items():
        if any(str(architecture).endswith(endings) for architecture in architectures):
            return head
    if not architectures:
        return "text"
    raise ValueError(
        f"{name} is a {architectures[0]}, which answers nothing by itself. Choose a model with a head: "
        f"{', '.join(f'...{head.endings[0]}' for head in HEADS.values())}."
    )
