"""The tokenizer and the model that a run begins with: fresh ones, or those of a trained model."""

import difflib
from pathlib import Path

import tokenizers
import torch
from datasets import DatasetDict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ...tokenization_fun_transformer import FunTransformerTokenizer
from ..data.bpe_dropout import check_merges
from ..data.caching import learned_once
from ..data.features import add_tags
from ..data.languages import check_languages, frames_languages, generation_options, language_pairs, set_languages
from ..data.splits import sample_rows
from ..data.tokenizing import languages_of
from ..objectives import Objective
from ..recipe.arguments import SPLITS, DataArguments, GenerationArguments, RunArguments
from ..recipe.base import starts_from_model
from ..recipe.defaults import choose_generation
from ..recipe.model_config import choose_config, choose_kernel, longest_text, recipe_fields
from ..run.checkpoints import commit_with_manifest, find_problem
from ..run.run import Run
from ..train_tokenizer import TokenizerSettings, train_tokenizer
from .finished_tokenizer import load_finished_tokenizer, start_token_id
from .loading import load_base_model, load_base_tokenizer
from .new_tokens import add_rows, has_new_tokens

logger = logging.get_logger(__name__)

AS_SAVED = ("dtype", "torch_dtype", "quantization_config")  # of the weights beside a config, not of the model


def build_tokenizer(arguments: RunArguments, objective: Objective, splits: DatasetDict) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the recipe names, or that of the model it starts from, or train one on the data.

    Raises:
        ValueError: When a finished tokenizer cannot be used, or cannot tell the languages of the data apart.
    """
    settings = arguments.tokenizer
    if starts_from_model(arguments):
        tokenizer = load_base_tokenizer(arguments, objective)
        check_encoding(tokenizer, arguments, objective, splits["train"][:10])
    elif settings.path:
        tokenizer = load_finished_tokenizer(settings.path, objective, splits["train"][:10])
    else:
        sample = sample_rows(splits["train"], settings.max_rows, arguments.training.seed)
        learned = TokenizerSettings(
            type=settings.type,
            vocab_size=settings.vocab_size,
            target_type=settings.target_type,
            target_vocab_size=settings.target_vocab_size,
            lowercase=settings.lowercase,
            min_frequency=settings.min_frequency,
            normalization=settings.normalization,
        )
        tokenizer = learned_once(
            sample,
            lambda: train_tokenizer(**objective.texts(sample), settings=learned),
            FunTransformerTokenizer,
            *(train_tokenizer, type(objective), learned, tokenizers.__version__),
        )
        objective.prepare_tokenizer(tokenizer)
    if arguments.training.bpe_dropout is not None:
        check_merges(tokenizer)
    if frames_languages(tokenizer):
        check_languages(tokenizer, arguments.data)
        set_languages(tokenizer, language_pairs(tokenizer, arguments.data, "train")[0])
    elif languages := set(languages_of(arguments.data, "train")):
        if starts_from_model(arguments):
            check_tags(tokenizer, languages, arguments.model["path"])
        elif not hasattr(tokenizer, "add_languages"):
            raise ValueError(
                f"tokenizer.path={settings.path}: only a FunTransformerTokenizer can tell languages apart."
            )
        else:
            tokenizer.add_languages(languages)
    elif starts_from_model(arguments) and (named := named_languages(arguments.data)):
        logger.warning(
            f"{named[0]} is not used by this model, which does not mark texts by their language: it only says how "
            "BLEU cuts words."
        )
    add_tags(tokenizer, splits["train"])
    return tokenizer


def named_languages(data: DataArguments) -> list[str]:
    """List the fields of a recipe that name a language."""
    return [
        f"data.{split}.{side}={language}"
        for split in SPLITS
        for corpus in getattr(data, split).corpora
        for side in ("src_lang", "tgt_lang")
        if (language := getattr(corpus, side)) is not None
    ]


def check_tags(tokenizer: PreTrainedTokenizerBase, languages: set[str], path: str) -> None:
    """Refuse languages for which the vocabulary of a trained model has no tag, such as >>en<<.

    Raises:
        ValueError: Naming the language, and those that it has.
    """
    vocabulary = tokenizer.get_vocab()
    known = sorted(token[2:-2] for token in vocabulary if token.startswith(">>") and token.endswith("<<"))
    for language in sorted(languages):
        if f">>{language}<<" not in vocabulary:
            near = difflib.get_close_matches(language, known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else f" It knows {', '.join(known[:5]) or 'none'}."
            raise ValueError(f"model.path={path}: its vocabulary has no language {language}.{hint}")


def check_encoding(tokenizer, arguments: RunArguments, objective: Objective, rows: dict[str, list]) -> None:
    """Try the tokenizer of a trained model on some rows.

    Raises:
        ValueError: It cannot encode them, or does not end targets, so that the model would not learn to stop.
    """
    path, family = arguments.model["path"], type(tokenizer).__name__
    if frames_languages(tokenizer):
        set_languages(tokenizer, language_pairs(tokenizer, arguments.data, "train")[0])
    try:
        encoded = objective.encode(rows, tokenizer)
    except Exception as error:
        raise ValueError(
            f"model.path={path}: its tokenizer ({family}) cannot encode the training texts for objective: "
            f"{objective.name}: {type(error).__name__}: {error}."
        ) from error
    if objective.counts_targets and tokenizer.eos_token_id not in encoded["labels"][0][-2:]:  # mBART: </s> en_XX
        raise ValueError(
            f"model.path={path}: its tokenizer ({family}) does not end a text in its end token "
            f"({tokenizer.eos_token}), so that the model would never learn to stop. Name another model."
        )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save the tokenizer of a run, whole and with its checksums."""
    partial = folder.with_name(f".{folder.name}.partial")
    tokenizer.save_pretrained(partial)
    commit_with_manifest(partial, folder)


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a run again.

    Args:
        folder: Of the tokenizer.
        trust_remote_code: Whether it may be one with code of its own.

    Raises:
        ValueError: When it is missing or no longer what was saved.
    """
    has_manifest = (folder / "manifest.json").exists() or not folder.is_dir()  # version 0.1.0 wrote none
    if has_manifest and (problem := find_problem(folder)):
        raise ValueError(
            f"The run's tokenizer {folder} is not readable: {problem}. Put back a copy (the model of a finished "
            "run has the same files), or start again with --overwrite and without --resume."
        )
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def make_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a trained model rows for tokens that its tokenizer got from the data, such as tags, in place."""
    needed, embeddings = 1 + max(tokenizer.get_vocab().values()), model.get_input_embeddings()
    if needed > len(embeddings.weight):  # type: ignore[arg-type]
        model.resize_token_embeddings(needed)


def build_model(run: Run) -> PreTrainedModel:
    """Build the model that a run begins with: one that the recipe names, with its weights, or a fresh one.

    Raises:
        ValueError: It cannot be loaded or built.
    """
    arguments, device = run.arguments, run.accelerator.device
    kernel = choose_kernel(arguments, device)
    if device.type == "cuda":  # cuDNN's attention takes milliseconds to plan for each new size of a batch
        torch.backends.cuda.enable_cudnn_sdp(arguments.training.packing is not None)
    if starts_from_model(arguments):
        model = load_base_model(arguments, run.objective, kernel)
        if has_new_tokens(arguments.tokenizer):
            old = load_base_tokenizer(arguments, run.objective, with_new=False)
            run.accelerator.print(add_rows(model, old, run.tokenizer, arguments.tokenizer))
        make_room(model, run.tokenizer)
        fit_generation(model, run)
    else:
        model = build_fresh_model(run, kernel)
    if arguments.training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def fit_generation(model: PreTrainedModel, run: Run) -> None:
    """Let a trained model generate as the recipe says; what the recipe does not name stays the model's.

    Raises:
        ValueError: An option needs what the model cannot do.
    """
    settings, training = run.arguments.generation, run.arguments.training
    if training.scheduled_sampling is not None and not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        raise ValueError(
            f"training.scheduled_sampling: a {model.config.model_type} does not say how its decoder's input is made. "
            "Leave it out."
        )
    if run.tokenizer.pad_token_id is not None and model.config.pad_token_id is None:
        model.config.pad_token_id = run.tokenizer.pad_token_id
    if not model.can_generate():
        return
    generation, own = model.generation_config, choose_generation(run.arguments)
    longest = longest_text(model.config)
    is_silent = generation.max_new_tokens is None and generation.max_length is None and run.objective.generates
    if is_silent or settings.max_new_tokens != own["max_new_tokens"]:
        generation.max_new_tokens = min(settings.max_new_tokens, longest or settings.max_new_tokens)
        generation.max_length = None
    for name in ("num_beams", "length_penalty"):
        if getattr(settings, name) != own[name]:
            setattr(generation, name, getattr(settings, name))
    if settings.num_beams == 1:  # without beams these mean nothing, and refuse to be saved
        generation.length_penalty = generation.early_stopping = None
    pairs = language_pairs(run.tokenizer, run.arguments.data, "train")
    if len(set(pairs)) == 1:
        for name, value in generation_options(run.tokenizer, pairs[0]).items():
            setattr(model.generation_config, name, value)


def build_fresh_model(run: Run, kernel: str) -> PreTrainedModel:
    """Build a model with fresh weights, as large as the recipe says and with the tokenizer's vocabulary.

    Weights train in float32, whatever they were saved in beside a config that the recipe names: in float16 the epsilon
    of Adam is 0, and a step destroys them.

    Raises:
        ValueError: When the recipe's vocabulary is smaller than the tokenizer's, or its fields do not fit together.
    """
    arguments, objective, tokenizer = run.arguments, run.objective, run.tokenizer
    if (named := arguments.model.get("dtype")) not in (None, "float32"):
        raise ValueError(
            f"model.dtype={named}: weights train in float32. Leave it out; training.precision is the number format of "
            "the matrix products."
        )
    fields = {name: value for name, value in recipe_fields(arguments).items() if name not in AS_SAVED}
    config_class = choose_config(fields.pop("model_type", "fun_transformer"), arguments.model)
    needed = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))  # some leave numbers out
    given = arguments.model.get("vocab_size")
    if given is not None and given < needed:
        raise ValueError(f"model.vocab_size={given} is smaller than the tokenizer's {needed}. Leave it out.")
    fields |= {
        "vocab_size": given or needed,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": start_token_id(tokenizer),
    }
    if target_size := getattr(tokenizer, "target_vocab_size", None):
        fields |= {"decoder_vocab_size": target_size, "share_encoder_decoder_embeddings": False}
    try:
        config = config_class(**{**objective.default_fields, **fields, **objective.config_fields()})
    except StrictDataclassError as error:
        raise ValueError(f"model: {error.__cause__ or error}") from error
    model = objective.model_class.from_config(config, attn_implementation=kernel, dtype=torch.float32)
    if model.can_generate():
        model.generation_config = build_generation_config(arguments.generation, model.config)
    return model


def build_generation_config(generation: GenerationArguments, config: PreTrainedConfig) -> GenerationConfig:
    """Say how the finished model generates unless it is told otherwise.

    No longer than it has positions for; those of a decoder alone are for the prompt, too.
    """
    longest = longest_text(config)
    is_prompted = longest is not None and not config.is_encoder_decoder
    return GenerationConfig(
        num_beams=generation.num_beams,
        max_length=longest if is_prompted else None,
        max_new_tokens=None if is_prompted else min(generation.max_new_tokens, longest or generation.max_new_tokens),
        length_penalty=generation.length_penalty if generation.num_beams > 1 else None,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id if config.is_encoder_decoder else None,
    )
