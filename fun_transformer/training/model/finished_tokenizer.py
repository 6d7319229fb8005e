"""A finished tokenizer of any family, made fit for training: what a recipe names as `tokenizer.path`.

Families differ in their special tokens. The decoder begins with

    T5, Marian      <pad>, as they have no token for the beginning of a text
    BART, mBART     </s>: their texts begin with <s> themselves
    BERT            [CLS], which is made the beginning of a text, and [SEP] its end
    all others      the beginning of a text

A special token that is needed and missing is added, or the tokenizer is refused before anything is written.
"""

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TokenizersBackend
from transformers.utils import logging

from ...tokenization_fun_transformer import (
    SPECIAL_TOKENS,
    FunTransformerTokenizer,
    build_decoder,
    build_post_processor,
)
from ..objectives import Objective

logger = logging.get_logger(__name__)

START = "decoder_start"  # in tokenizer_config.json; a name in _token would be taken for that of a special token
PROBE = "A test: 测试 \U00010348"  # with a character that hardly any vocabulary has


def load_finished_tokenizer(path: str, objective: Objective, rows: dict[str, list[Any]]) -> PreTrainedTokenizerBase:
    """Load a tokenizer and give it the special tokens that the objective needs.

    Args:
        path: Folder or Hub name.
        objective: What is learned.
        rows: Some rows, to try the tokenizer on.

    Raises:
        ValueError: It cannot be loaded, or cannot be used for this.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise ValueError(f"tokenizer.path={path} cannot be loaded: {error}") from error
    family = type(tokenizer).__name__
    try:
        tokenizer = fit_tokenizer(tokenizer, objective)
        tokenizer(PROBE)
        encoded = objective.encode(rows, tokenizer)
    except Exception as error:
        raise ValueError(
            f"tokenizer.path={path} ({family}) cannot encode the training texts for objective: {objective.name}: "
            f"{type(error).__name__}: {error}. Name another one, or leave tokenizer.path out: one is trained."
        ) from error
    if (
        "eos_token" in objective.special_tokens
        and objective.counts_targets
        and encoded["labels"][0][-1] != tokenizer.eos_token_id
    ):
        raise ValueError(
            f"tokenizer.path={path} does not end a text in its end token ({tokenizer.eos_token}), so that a model "
            "would never learn to stop. Name another one, or leave tokenizer.path out: one is trained."
        )
    return tokenizer


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, objective: Objective) -> PreTrainedTokenizerBase:
    """Return a tokenizer with the special tokens and the frame that the objective needs, and note its start token."""
    family = type(tokenizer).__name__
    add_special_tokens(tokenizer, objective.special_tokens)
    tokenizer = fit_frame(tokenizer, objective)
    if objective.counts_targets and not isinstance(tokenizer, FunTransformerTokenizer):
        begins_itself = "Bart" in family or "Roberta" in family  # BART's tokenizer is RoBERTa's
        start = tokenizer.eos_token if begins_itself else tokenizer.bos_token or tokenizer.pad_token
        tokenizer.init_kwargs[START] = start
    objective.prepare_tokenizer(tokenizer)
    return tokenizer


def fit_frame(tokenizer: PreTrainedTokenizerBase, objective: Objective) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose texts end in the token for their end, where the objective writes texts.

    Classes such as GPT-2's build again, whenever they are loaded, what is changed here, and BERT's gives token types,
    which our models do not know. In their place comes a plain tokenizer with the same parts, all in tokenizer.json.
    """
    if not isinstance(tokenizer, TokenizersBackend):
        return tokenizer
    ends = not objective.counts_targets or tokenizer("a").input_ids[-1:] == [tokenizer.eos_token_id]
    if isinstance(tokenizer, FunTransformerTokenizer):
        if not ends:  # that of a causal language model
            tokenizer.backend_tokenizer.post_processor = build_post_processor()
            tokenizer.backend_tokenizer.decoder = build_decoder()
        return tokenizer
    keeps_frame = ends and type(objective).prepare_tokenizer is Objective.prepare_tokenizer
    if not keeps_frame or "token_type_ids" in tokenizer.model_input_names:
        tokenizer = TokenizersBackend(
            tokenizer_object=tokenizer.backend_tokenizer,
            padding_side=tokenizer.padding_side,
            truncation_side=tokenizer.truncation_side,
            model_max_length=tokenizer.model_max_length,
            **tokenizer.special_tokens_map,
        )
    if not ends:
        end_texts(tokenizer)
    return tokenizer


def end_texts(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make texts end in the token for their end; what they begin with stays."""
    end = tokenizer.eos_token
    before = tokenizer.convert_ids_to_tokens(tokenizer("").input_ids)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*before, "$A", end],
        pair=[*before, "$A", end, "$B", end],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in sorted({*before, end})],
    )


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, needed: tuple[str, ...]) -> None:
    """Add the special tokens that are needed and missing, such as "pad_token", and say which.

    [CLS] and [SEP] are taken for the beginning and the end of a text where there are no others. A padding that is also
    the end of a text is replaced: the loss leaves padding out, so no model would learn to stop.
    """
    for name, other in (("bos_token", tokenizer.cls_token), ("eos_token", tokenizer.sep_token)):
        if getattr(tokenizer, name) is None and other is not None:
            tokenizer.add_special_tokens({name: other})
    missing = [name for name in needed if getattr(tokenizer, name) is None]
    if "pad_token" in needed and tokenizer.pad_token == tokenizer.eos_token and "pad_token" not in missing:
        missing.append("pad_token")
    added: dict[str, Any] = {name: SPECIAL_TOKENS[name] for name in missing}
    if added:
        tokenizer.add_special_tokens(added)
        logger.warning(f"The finished tokenizer gets the special tokens that it lacks: {', '.join(added.values())}.")


def start_token_id(tokenizer: Any) -> int | None:
    """Return the id of the token that a decoder begins with."""
    start = tokenizer.init_kwargs.get(START)
    return tokenizer.convert_tokens_to_ids(start) if start else tokenizer.bos_token_id
