"""New tokens of a trained model: words that its tokenizer is to keep whole, and languages.

The row of a new word begins as the mean of the rows of the pieces that the old tokenizer cut it into, that of a new
language as the row of a similar one, or as the mean of all languages. So the model reads them as something that it
knows, before it has seen them once. The other rows stay where they are, and so do their logits.
"""

from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel

from ..data.languages import frames_languages, known_languages
from ..recipe.arguments import RunArguments, TokenizerArguments
from ..recipe.names import nearest


def has_new_tokens(settings: TokenizerArguments) -> bool:
    """Return whether a recipe adds tokens to a trained model."""
    return bool(settings.new_tokens or settings.new_languages)


def split_language(text: str) -> tuple[str, str | None]:
    """Split yue_Hant=zho_Hant into the new language and the one that it is like, None where none is named."""
    new, _, like = text.partition("=")
    return new.strip(), like.strip() or None


def tagged_languages(tokenizer: Any) -> list[str]:
    """List the languages that a tokenizer has tags for, such as >>en<<."""
    return sorted(token[2:-2] for token in tokenizer.get_vocab() if token.startswith(">>") and token.endswith("<<"))


def language_token(tokenizer: Any, language: str) -> str:
    """Return the token of a language: its name where a tokenizer frames texts by it, else >>en<<."""
    return language if frames_languages(tokenizer) else f">>{language}<<"


def languages_known(tokenizer: Any) -> list[str]:
    """List the languages that a tokenizer has tokens for."""
    return known_languages(tokenizer) if frames_languages(tokenizer) else tagged_languages(tokenizer)


def check_new(tokenizer: Any, settings: TokenizerArguments) -> None:
    """Refuse what is no new token.

    Raises:
        ValueError: It is there already, is empty or named twice, or the tokenizer cannot keep it.
    """
    vocabulary = tokenizer.get_vocab()
    languages = [split_language(text) for text in settings.new_languages]
    wanted = [(token, "new_tokens") for token in settings.new_tokens]
    wanted += [(language_token(tokenizer, new), "new_languages") for new, _ in languages]
    seen: set[str] = set()
    for token, name in wanted:
        if not token.strip() or token != token.strip():
            raise ValueError(f"tokenizer.{name}: {token!r} is empty, or begins or ends with a space. Leave that out.")
        if token in seen:
            raise ValueError(f"tokenizer.{name}: {token!r} is named twice. Name it once.")
        if token in vocabulary:
            raise ValueError(f"tokenizer.{name}: {token!r} is in the vocabulary already. Leave it out.")
        seen.add(token)
    known = languages_known(tokenizer)
    for new, like in languages:
        if like is not None and like not in known:
            raise ValueError(
                f"tokenizer.new_languages: {new}={like} is to begin as {like}, which this tokenizer does not know."
                f"{nearest(like, known)} It knows {', '.join(known[:5]) or 'none'}."
            )
    if languages and hasattr(tokenizer, "lang_code_to_id"):
        raise ValueError(
            f"tokenizer.new_languages: a {type(tokenizer).__name__} has a fixed list of languages, which is not saved "
            f"with it. Name one that you do not need, such as {known[-1]}, as data.train.tgt_lang in the new one's "
            "place."
        )


def add_tokens(tokenizer: Any, settings: TokenizerArguments) -> None:
    """Give a trained model's tokenizer the new tokens of a recipe, in place.

    Raises:
        ValueError: One is there already, or cannot be kept.
    """
    check_new(tokenizer, settings)
    if settings.new_tokens:
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in settings.new_tokens])
    languages = [split_language(text)[0] for text in settings.new_languages]
    if languages and hasattr(tokenizer, "add_languages"):
        tokenizer.add_languages(languages)
    elif languages:
        tokens = [AddedToken(language_token(tokenizer, new), special=True, normalized=False) for new in languages]
        tokenizer.add_tokens(tokens, special_tokens=True)


def new_ids(settings: TokenizerArguments, tokenizer: Any) -> list[int]:
    """Return the numbers of a recipe's new tokens, in the order of the recipe: words, then languages."""
    languages = [language_token(tokenizer, split_language(text)[0]) for text in settings.new_languages]
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in [*settings.new_tokens, *languages]]


def new_rows(arguments: RunArguments, tokenizer: Any) -> list[int]:
    """Return the rows of a run's new tokens; none where it has none."""
    return new_ids(arguments.tokenizer, tokenizer) if has_new_tokens(arguments.tokenizer) else []


def origins(settings: TokenizerArguments, old: Any) -> Iterator[list[int]]:
    """Yield for each new token the numbers of the old tokens whose mean it begins as; none for that of all tokens.

    Args:
        settings: The recipe's section `tokenizer`.
        old: The tokenizer without the new tokens.
    """
    for token in settings.new_tokens:
        pieces = old(token, add_special_tokens=False)["input_ids"]
        yield [piece for piece in pieces if piece != old.unk_token_id]
    for _, like in map(split_language, settings.new_languages):
        names = languages_known(old) if like is None else [like]
        yield [int(old.convert_tokens_to_ids(language_token(old, name))) for name in names]


def token_matrices(model: PreTrainedModel) -> list[Any]:
    """List the modules of a model with a row for each token: embeddings and the output layer, tied ones too."""
    sides = [model, *(getattr(model.base_model, side, None) for side in ("encoder", "decoder"))]
    found = [side.get_input_embeddings() for side in sides if isinstance(side, PreTrainedModel)]
    return [module for module in (*found, model.get_output_embeddings()) if module is not None]


@torch.no_grad()
def add_rows(model: PreTrainedModel, old: Any, tokenizer: Any, settings: TokenizerArguments) -> str:
    """Give a model rows for the new tokens of its tokenizer, in place.

    Args:
        model: Any that has embeddings.
        old: The tokenizer as it was.
        tokenizer: With the new tokens.
        settings: The recipe's section `tokenizer`.

    Returns:
        What was added, to be printed.

    Raises:
        ValueError: The model has several vocabularies.
    """
    before = len(token_matrices(model)[0].weight)
    numbers = new_ids(settings, tokenizer)
    if max(numbers) >= before:  # else there was room, as in T5's
        model.resize_token_embeddings(max(numbers) + 1, mean_resizing=False)
    needed = max(before, max(numbers) + 1)
    if any(len(matrix.weight) != needed for matrix in token_matrices(model)):
        raise ValueError(
            f"tokenizer.new_tokens: this {model.config.model_type} has a vocabulary of its own for each side. Tokens "
            "can be added to models with one vocabulary."
        )
    tables = {id(matrix.weight): matrix.weight for matrix in token_matrices(model)}
    head: Any = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        tables[id(head.bias)] = head.bias.unsqueeze(-1)
    constant: Any = getattr(model, "final_logits_bias", None)
    if constant is not None:
        tables[id(constant)] = constant.view(-1, 1)  # (vocab_size, 1)
    for number, pieces in zip(numbers, origins(settings, old), strict=True):
        for table in tables.values():
            table[number] = (table[pieces] if pieces else table[:before]).mean(0)
    of_words, of_languages = len(settings.new_tokens), len(settings.new_languages)
    return f"{of_words:,} new tokens and {of_languages:,} new languages: the vocabulary has {needed:,} rows."
