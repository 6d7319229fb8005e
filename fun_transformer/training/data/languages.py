"""Languages of multilingual tokenizers: NLLB, M2M100 and mBART frame a text by its language.

A recipe says them with the data, `data.train.src_lang` and `data.train.tgt_lang`, by the tokenizer's names. Targets
that begin with their language, as NLLB's, make the model begin with it (`forced_bos_token_id`); where it comes last,
as mBART's, the decoder begins with it (`decoder_start_token_id`).
"""

import re
from typing import Any

from ...pipeline_fun_transformer import check_language as check_known
from ..recipe.arguments import SPLITS, DataArguments, SplitArguments

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]+")  # eng_Latn, en_XX
Pair = tuple[str, str]


def frames_languages(tokenizer: Any) -> bool:
    """Return whether a tokenizer frames texts by their language."""
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "set_tgt_lang_special_tokens")


def known_languages(tokenizer: Any) -> list[str]:
    """List the names that a multilingual tokenizer has for languages."""
    table = getattr(tokenizer, "lang_code_to_id", None)
    return sorted(table or (token for token in tokenizer.get_added_vocab() if CODE.fullmatch(token)))


def corpora_of(data: DataArguments, name: str) -> list[SplitArguments]:
    """Return the corpora that the rows of a split are from; held-out rows are from train."""
    split = getattr(data, name)
    return (split if split.is_named else data.train).corpora


def language_pairs(tokenizer: Any, data: DataArguments, name: str) -> list[Pair]:
    """Return the source and target language of each corpus of a split; none where the tokenizer asks for none.

    A split that names no languages has those of train, where all of train has the same.

    Raises:
        ValueError: A language is missing, or the tokenizer does not know it.
    """
    if not frames_languages(tokenizer):
        return []
    pairs: list[Pair] = []
    train = {(corpus.src_lang, corpus.tgt_lang) for corpus in data.train.corpora}
    default = train.pop() if len(train) == 1 else (None, None)
    for corpus in corpora_of(data, name):
        pair = (corpus.src_lang or default[0], corpus.tgt_lang or default[1])
        for side, language in zip(("src_lang", "tgt_lang"), pair, strict=True):
            check_language(tokenizer, language, f"data.{name}.{side}")
        pairs.append((str(pair[0]), str(pair[1])))
    return pairs


def check_language(tokenizer: Any, language: str | None, name: str) -> None:
    """Refuse a language that a multilingual tokenizer does not know.

    Raises:
        ValueError: With the nearest one that it knows.
    """
    known = known_languages(tokenizer)
    if language is None:
        raise ValueError(
            f"{name} is missing: this model's tokenizer ({type(tokenizer).__name__}) frames texts by their language. "
            f"Give one of {', '.join(known[:3])} ... ({len(known):,} in all)."
        )
    check_known(tokenizer, language, name)


def check_languages(tokenizer: Any, data: DataArguments) -> None:
    """Check the languages of all splits that a recipe names.

    Raises:
        ValueError: One is missing, or not known.
    """
    for name in SPLITS:
        if getattr(data, name).is_named:
            language_pairs(tokenizer, data, name)


def set_languages(tokenizer: Any, pair: Pair) -> None:
    """Let a multilingual tokenizer frame texts as those of two languages, also after it is saved and read again."""
    tokenizer.tgt_lang = pair[1]
    tokenizer.src_lang = pair[0]  # last: this builds the frame
    tokenizer.init_kwargs |= {"src_lang": pair[0], "tgt_lang": pair[1]}


def generation_options(tokenizer: Any, pair: Pair) -> dict[str, Any]:
    """Return how `generate` begins texts of the pair's target language."""
    get_id = getattr(tokenizer, "get_lang_id", tokenizer.convert_tokens_to_ids)
    number = get_id(pair[1])
    set_languages(tokenizer, pair)
    target = tokenizer(text_target="a")["input_ids"]
    if target[0] == number:
        return {"forced_bos_token_id": number}
    return {"decoder_start_token_id": number, "forced_bos_token_id": None} if target[-1] == number else {}
