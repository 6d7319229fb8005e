"""A tokenizer and a model with fresh weights, as the recipe describes them."""

import torch
from datasets import DatasetDict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ... import FunTransformerConfig
from ..data.splits import sample_rows
from ..data.tokenizing import languages_of
from ..objectives import Objective
from ..recipe.arguments import GenerationArguments, RunArguments
from ..recipe.model_config import choose_config, choose_kernel, recipe_fields
from ..run.run import Run
from ..train_tokenizer import TokenizerSettings, train_tokenizer

AS_SAVED = ("dtype", "torch_dtype", "quantization_config")  # of the weights beside a config, not of the model


def build_tokenizer(arguments: RunArguments, objective: Objective, splits: DatasetDict) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the recipe names, or train one on the training split.

    Raises:
        ValueError: When a finished tokenizer cannot tell the languages of the data apart.
    """
    settings = arguments.tokenizer
    if settings.path:
        tokenizer = AutoTokenizer.from_pretrained(settings.path)
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
    if languages := set(languages_of(arguments.data, "train")):
        if not hasattr(tokenizer, "add_languages"):
            raise ValueError(
                f"tokenizer.path={settings.path}: only a FunTransformerTokenizer can tell languages apart."
            )
        tokenizer.add_languages(languages)
    return tokenizer


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
    needed, given = len(tokenizer), arguments.model.get("vocab_size")
    if given is not None and given < needed:
        raise ValueError(f"model.vocab_size={given} is smaller than the tokenizer's {needed}. Leave it out.")
    fields |= {
        "vocab_size": given or needed,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
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
    """Say how the finished model generates unless it is told otherwise."""
    return GenerationConfig(
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        length_penalty=generation.length_penalty if generation.num_beams > 1 else None,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id if config.is_encoder_decoder else None,
    )
