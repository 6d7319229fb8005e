"""A tokenizer and a model with fresh weights, as the recipe describes them."""

from pathlib import Path

import torch
from datasets import DatasetDict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ... import FunTransformerConfig
from ..data.bpe_dropout import check_merges
from ..data.splits import sample_rows
from ..data.tokenizing import languages_of
from ..objectives import Objective
from ..recipe.arguments import GenerationArguments, RunArguments
from ..recipe.model_config import choose_config, choose_kernel, longest_text, recipe_fields
from ..run.checkpoints import commit_with_manifest, find_problem
from ..run.run import Run
from ..train_tokenizer import TokenizerSettings, train_tokenizer
from .finished_tokenizer import load_finished_tokenizer, start_token_id

AS_SAVED = ("dtype", "torch_dtype", "quantization_config")  # of the weights beside a config, not of the model


def build_tokenizer(arguments: RunArguments, objective: Objective, splits: DatasetDict) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the recipe names, or train one on the training split.

    Raises:
        ValueError: When a finished tokenizer cannot be used, or cannot tell the languages of the data apart.
    """
    settings = arguments.tokenizer
    if settings.path:
        tokenizer = load_finished_tokenizer(settings.path, objective, splits["train"][:10])
    else:
        texts = objective.texts(sample_rows(splits["train"], settings.max_rows, arguments.training.seed))
        learned = TokenizerSettings(
            type=settings.type,
            vocab_size=settings.vocab_size,
            target_type=settings.target_type,
            target_vocab_size=settings.target_vocab_size,
            lowercase=settings.lowercase,
            min_frequency=settings.min_frequency,
        )
        tokenizer = train_tokenizer(**texts, settings=learned)
        objective.prepare_tokenizer(tokenizer)
    if arguments.training.bpe_dropout is not None:
        check_merges(tokenizer)
    if languages := set(languages_of(arguments.data, "train")):
        if not hasattr(tokenizer, "add_languages"):
            raise ValueError(
                f"tokenizer.path={settings.path}: only a FunTransformerTokenizer can tell languages apart."
            )
        tokenizer.add_languages(languages)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save the tokenizer of a run, whole and with its checksums."""
    partial = folder.with_name(f".{folder.name}.partial")
    tokenizer.save_pretrained(partial)
    commit_with_manifest(partial, folder)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a run again.

    Raises:
        ValueError: When it is missing or no longer what was saved.
    """
    has_manifest = (folder / "manifest.json").exists() or not folder.is_dir()  # version 0.1.0 wrote none
    if has_manifest and (problem := find_problem(folder)):
        raise ValueError(
            f"The run's tokenizer {folder} is not readable: {problem}. Put back a copy (the model of a finished "
            "run has the same files), or start again with --overwrite and without --resume."
        )
    return AutoTokenizer.from_pretrained(folder)


def build_model(run: Run) -> PreTrainedModel:
    """Build a model with fresh weights, as large as the recipe says and with the tokenizer's vocabulary.

    Weights train in float32, whatever they were saved in beside a config that the recipe names: in float16 the epsilon
    of Adam is 0, and a step destroys them.

    Raises:
        ValueError: When the recipe's vocabulary is smaller than the tokenizer's, or its fields do not fit together.
    """
    arguments, objective, tokenizer, device = run.arguments, run.objective, run.tokenizer, run.accelerator.device
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
        config = config_class(**fields, **objective.config_fields())
    except StrictDataclassError as error:
        raise ValueError(f"model: {error.__cause__ or error}") from error
    kernel = choose_kernel(arguments, device)
    if device.type == "cuda":  # cuDNN's attention takes milliseconds to plan for each new size of a batch
        torch.backends.cuda.enable_cudnn_sdp(arguments.training.packing is not None)
    model = objective.model_class.from_config(config, attn_implementation=kernel, dtype=torch.float32)
    if model.can_generate():
        model.generation_config = build_generation_config(arguments.generation, model.config)
    if arguments.training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def build_generation_config(generation: GenerationArguments, config: FunTransformerConfig) -> GenerationConfig:
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
