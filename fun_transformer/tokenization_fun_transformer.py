"""Text to ids and back without loss: normalisation, splitting, subwords with byte fallback, decoding.

A sentence goes through five steps, all of them in the Rust library `tokenizers`:

1. normalise: NFC (or NFD, or as it is), one space between words (`normalise` says it exactly);
2. mark spaces: "I am" -> "▁I▁am", as SentencePiece does (Kudo and Richardson, 2018), so that joining the tokens and
   turning ▁ back into a space restores the text. A text that begins in Chinese or Japanese gets no leading ▁;
3. split where no token may cross: at spaces, between letters, digits, punctuation, and Chinese and other scripts;
4. model: `bpe` (Sennrich et al., 2016) or `unigram` (Kudo, 2018), where a character outside the vocabulary becomes its
   UTF-8 bytes `<0x00>`..`<0xFF>`; or a plain list of characters (`char`) or words (`word`), where it becomes `<unk>`;
5. finish: `tokens </s>`, and `first </s> second </s>` for a pair.

Vocabularies are learned by `fun_transformer.training.train_tokenizer`.
"""

import copy
import difflib
import re
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from transformers import TokenizersBackend

__all__ = [
    "BYTE_TOKENS",
    "SPACE",
    "SPECIAL_TOKENS",
    "FunTransformerTokenizer",
    "build_pre_tokenizer",
    "normalise",
    "tag_language",
    "unknown_characters",
]

SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "▁"  # U+2581, not an underscore
LANGUAGE = re.compile(r">>([\w-]+)<<")

# Unicode's White_Space, spelled out: what \s means differs between regex engines.
WHITE_SPACE = r"[\t-\r \u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]+"
# Written without spaces: hanzi, kana, and their punctuation and full-width forms.
CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\u3000-\u303F\uFF00-\uFFEF"
PUNCTUATION = rf"[\p{{P}}\p{{S}}&&[^{SPACE}]]"
LETTERS = rf"[^{SPACE}{CJK}\p{{Nd}}\p{{P}}\p{{S}}]"  # also marks, control characters: all that is left
CJK_LETTERS = rf"[{CJK}&&[^\p{{Nd}}\p{{P}}\p{{S}}]]"

# No token crosses a border between these pieces. Runs are cut at 32, so that none is slow to learn or to encode.
SUBWORD_PIECE = rf"{SPACE}?(?:\p{{Nd}}|{PUNCTUATION}{{1,32}}|{CJK_LETTERS}{{1,32}}|{LETTERS}{{1,32}})"
WORD_PIECE = rf"[{CJK}]|{SPACE}(?=[{CJK}])|{SPACE}?(?:[^{SPACE}{CJK}\p{{P}}\p{{S}}]|_)+|{SPACE}?{PUNCTUATION}"
PIECES = {"bpe": SUBWORD_PIECE, "unigram": SUBWORD_PIECE, "char": r"[\s\S]", "word": WORD_PIECE}


NORMALIZATIONS = {"nfc": [normalizers.NFC()], "nfd": [normalizers.NFD()], "none": []}


@cache
def build_normalizer(lowercase=False, normalization="nfc"):
    """Build step 1, see `normalise`."""
    steps = [*([normalizers.Lowercase()] if lowercase else []), *NORMALIZATIONS[normalization]]
    spaces = [normalizers.Replace(Regex(WHITE_SPACE), " "), normalizers.Strip()]
    return normalizers.Sequence([*steps, *spaces, normalizers.Replace(SPACE, "_")])


@cache
def build_pre_tokenizer(type):
    """Build steps 2 and 3 for the type "bpe", "unigram", "char" or "word".

    Only characters have no leading ▁: they have no word beginnings to tell from word ends.
    """
    mark_spaces = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never" if type == "char" else "always", split=False)
    drop_leading = pre_tokenizers.Split(Regex(rf"\A{SPACE}(?=[{CJK}])"), "removed")
    split = pre_tokenizers.Split(Regex(PIECES[type]), "isolated")
    return pre_tokenizers.Sequence([mark_spaces, split] if type == "char" else [mark_spaces, drop_leading, split])


def build_steps(type, lowercase=False, added=(), normalization="nfc"):
    """Build steps 1 to 3, where the plain tokens in `added` are found between them: (normalizer, pre-tokenizer).

    Text on both sides of such a token is split from it before the pre-tokenizer looks, which cannot tell the beginning
    of a text from the middle then. So for subwords the normalizer marks spaces, if there are added tokens.
    """
    normalizer = build_normalizer(lowercase, normalization)
    if not added or type not in ("bpe", "unigram"):
        return normalizer, build_pre_tokenizer(type)
    words = [re.escape(normalizer.normalize_str(token.content).replace(" ", SPACE)) for token in added]
    ends = [r"(?!\w)" if token.single_word else "" for token in added]
    unmarked = "|".join([f"[{CJK}]", *(word + end for word, end in zip(words, ends) if word)])
    marks = [
        normalizers.Prepend(SPACE),
        normalizers.Replace(" ", SPACE),
        normalizers.Replace(Regex(rf"\A{SPACE}(?={unmarked})"), ""),
    ]
    return normalizers.Sequence([normalizer, *marks]), pre_tokenizers.Split(Regex(PIECES[type]), "isolated")


def build_decoder():
    """Build the way back to text: ▁ to space, bytes to characters (impossible ones to U+FFFD), no leading space."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return decoders.Sequence(steps)


def build_post_processor():
    """Build step 5: `tokens </s>`, and `first </s> second </s>` for a pair."""
    eos_token = SPECIAL_TOKENS["eos_token"]
    special_tokens = [(eos_token, list(SPECIAL_TOKENS.values()).index(eos_token))]
    single, pair = f"$A {eos_token}", f"$A {eos_token} $B:1 {eos_token}:1"
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special_tokens)


def normalise(text, lowercase=False, normalization="nfc"):
    """Return what decoding gives back: the text in NFC, one space for each run of white space and none at the ends.

    With `normalization` "nfd" letters come apart from their accents and Hangul syllables into their parts, with "none"
    they stay as they are. Full-width forms, control characters and zero-width joiners stay. The one character that is
    lost is a literal ▁ (U+2581), which means a space in tokens and becomes "_".
    """
    return build_normalizer(lowercase, normalization).normalize_str(text)


def tag_language(text, language):
    """Put a token before a text that says which language to translate it into (Johnson et al., 2017)."""
    return f">>{language}<< {text}"


def unknown_characters(tokenizer, text, is_target=False):
    """Find what a vocabulary does not have: characters, or words where it has no smaller parts.

    Args:
        tokenizer: Any of transformers.
        text: A source, or a target if `is_target`.
        is_target: Look at the target's side of the tokenizer.

    Returns:
        The parts of the text that become `unk_token`, as often and in the order as they occur.
    """
    unknown = tokenizer.unk_token_id

    def encode(text, **options):
        return tokenizer(**{"text_target" if is_target else "text": text}, add_special_tokens=False, **options)

    if unknown is None or unknown not in (encoded := encode(text, verbose=False)).input_ids:
        return []
    if tokenizer.is_fast:
        encoded = encode(text, verbose=False, return_offsets_mapping=True)
        spans = [span for span, token_id in zip(encoded.offset_mapping, encoded.input_ids) if token_id == unknown]
        found = [text[start:end].strip() for start, end in spans]
    else:
        alone = {character: unknown in encode(character).input_ids for character in set(text)}
        found = [character for character in text if alone[character]] or [text]
    return [part for part in found if part not in ("", tokenizer.unk_token)]


def is_plain(token):
    """Tell whether an added token is found in normalised text: not a special one, which takes the spaces beside it."""
    return token.normalized and not token.special


class FunTransformerTokenizer(TokenizersBackend):
    """A fast tokenizer whose source and target sides share one vocabulary, may be split differently, or are apart.

    `decode(tokenizer(text).input_ids, skip_special_tokens=True)` equals `normalise(text)` for every text with `bpe`
    and `unigram`, and with `char` and `word` where all symbols are in the vocabulary. As everywhere at Hugging Face,
    a special token written out in the text ("</s>") becomes that token; `split_special_tokens=True` keeps it text.
    It holds with tokens that were added later (`add_tokens(["<num>"])`), except for spaces beside special ones and
    ones with `normalized=False`, and after any in a `word` vocabulary.

    Everything is stored in tokenizer.json, except how the target side differs, which is in tokenizer_config.json:
    `source_type`, `target_type`, `lowercase` ("none", "source" or "both") and `normalization` ("nfc", "nfd" or "none";
    NFC where it is missing). For letters to phonemes, with the types
    `char` and `word`, `tokenizer("Cat", text_target="K AE T")` encodes `c a t </s>` and `▁K ▁AE ▁T </s>`.

    With separate vocabularies a second tokenizer, `target_tokenizer` in tokenizer_config.json, encodes `text_target`.
    Decoding is then of target ids, as Marian does it; `decode(ids, use_source_tokenizer=True)` is of source ids.
    `get_target_vocab` and `convert_target_ids_to_tokens` are `get_vocab` and `convert_ids_to_tokens` of the target.
    Tokens are added to the source's vocabulary.

    For models of several languages, `add_languages(["en", "zh"])` makes the special tokens `>>en<<` and `>>zh<<`, as
    OPUS-MT has them: a source begins with the language that it is to be translated into. Translation pipelines put
    it there, given `tgt_lang="en"`.

    There is no `__init__`: with one, transformers would rebuild the backend from its vocabulary alone on loading.
    """

    model_input_names = ["input_ids", "attention_mask"]

    _target_backend = None  # of a separate vocabulary: read when it is first needed, and never changed

    @classmethod
    def from_backend(cls, backend, source_type, target_type, lowercase, target_backend=None, normalization="nfc"):
        """Give a `tokenizers.Tokenizer`, of which only the model and special tokens count, all the other steps.

        With a `target_backend`, source and target have separate vocabularies.
        """
        sides = {"source_type": source_type, "target_type": target_type, "lowercase": lowercase}
        if normalization != "nfc":
            sides["normalization"] = normalization
        for part, type, is_lower in (
            (backend, source_type, lowercase != "none"),
            (target_backend, target_type, lowercase == "both"),
        ):
            if part is not None:
                part.normalizer, part.pre_tokenizer = build_steps(type, is_lower, normalization=normalization)
                part.decoder, part.post_processor = build_decoder(), build_post_processor()
        if target_backend is not None:
            sides["target_tokenizer"] = target_backend.to_str()
        return cls(tokenizer_object=backend, **sides, **SPECIAL_TOKENS)

    def __call__(self, text=None, text_pair=None, text_target=None, text_pair_target=None, *args, **kwargs):
        """Encode sources and targets as every tokenizer does, each side by a backend of its own.

        transformers would switch the tokenizer to its target mode and back. Here nothing is switched, so that other
        threads may encode and decode at the same time.
        """
        if text_target is None:
            return super().__call__(text, text_pair, None, None, *args, **kwargs)
        encode_target = super(FunTransformerTokenizer, self._target_side()).__call__
        targets = encode_target(None, None, text_target, text_pair_target, *args, **kwargs)
        if text is None:
            return targets
        batch = super().__call__(text, text_pair, None, None, *args, **kwargs)
        batch["labels"] = targets["input_ids"]
        return batch

    @property
    def _normalization(self):
        """The Unicode form that texts are brought into."""
        return self.init_kwargs.get("normalization") or "nfc"

    def _target_side(self):
        """Return a tokenizer of the target's texts and ids: this one, or a copy of it with another backend."""
        source_type, target_type, lowercase = map(self.init_kwargs.get, ("source_type", "target_type", "lowercase"))
        if self.init_kwargs.get("target_tokenizer") is not None:
            if self._target_backend is None:
                self._target_backend = Tokenizer.from_str(self.init_kwargs["target_tokenizer"])
            backend = self._target_backend
        elif source_type == target_type and lowercase != "source":
            return self
        else:
            backend = self._with_shared_vocabulary(target_type, lowercase == "both")
        side = copy.copy(self)
        side._tokenizer = backend
        return side

    @property
    def target_backend(self):
        """The `tokenizers.Tokenizer` of the target's texts and ids: `backend_tokenizer` where both sides are alike."""
        return self._target_side().backend_tokenizer

    def _with_shared_vocabulary(self, type, lowercase):
        """Return a backend with the model and the added tokens of this one that normalises and splits differently."""
        backend = Tokenizer(self._tokenizer.model)
        added = [token for _, token in sorted(self.added_tokens_decoder.items())]
        plain = [*filter(is_plain, added)]
        backend.normalizer, backend.pre_tokenizer = build_steps(type, lowercase, plain, self._normalization)
        backend.decoder, backend.post_processor = self._tokenizer.decoder, self._tokenizer.post_processor
        backend.add_tokens(added)
        return backend

    def _add_tokens(self, new_tokens, special_tokens=False):
        """Add tokens; plain ones are found in normalised text, so that decoding gives back the spaces beside them."""
        known = self._tokenizer.get_added_tokens_decoder().values()
        tokens = [AddedToken(token) if isinstance(token, str) else token for token in new_tokens]
        new = {token.content for token in tokens if is_plain(token)} - {token.content for token in known}
        if new and not special_tokens:
            type, lowercase = self.init_kwargs["source_type"], self.init_kwargs["lowercase"] != "none"
            plain = [token for token in (*known, *tokens) if is_plain(token)]
            steps = build_steps(type, lowercase, plain, self._normalization)
            self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = steps
        return super()._add_tokens(new_tokens, special_tokens)

    def train_new_from_iterator(self, *args, **kwargs):
        """Refuse: the library would lose the bytes of unknown characters and leave the target's side as it was.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "Learn another vocabulary with fun_transformer.training.train_tokenizer.train_tokenizer(texts, targets, "
            "TokenizerSettings(type=..., vocab_size=...)): train_new_from_iterator would lose the byte tokens, and "
            "leave the target's vocabulary as it is."
        )

    @property
    def target_vocab_size(self):
        """Size of the target's vocabulary; None where it is the source's, too."""
        if self.init_kwargs.get("target_tokenizer") is None:
            return None
        return len(self._target_side())

    def get_target_vocab(self):
        """Return the target's vocabulary, token -> id; the source's where both share one."""
        return self._target_side().get_vocab()

    def convert_target_ids_to_tokens(self, ids):
        """Convert ids to tokens as `convert_ids_to_tokens` does, in the target's vocabulary."""
        return self._target_side().convert_ids_to_tokens(ids)

    def _decode(self, *args, use_source_tokenizer=False, **kwargs):
        side = self if use_source_tokenizer else self._target_side()
        return super(FunTransformerTokenizer, side)._decode(*args, **kwargs)

    def unknown_characters(self, text, is_target=False):
        """Return the characters, or words, of a text that are not in the vocabulary; see `unknown_characters`."""
        return unknown_characters(self, text, is_target)

    @property
    def languages(self):
        """Languages that a source can be translated into, sorted; none where the model has only one."""
        return sorted(match[1] for match in map(LANGUAGE.fullmatch, self.get_added_vocab()) if match)

    def add_languages(self, languages):
        """Make a special token of each language, in the order of their names."""
        new = sorted(set(languages) - set(self.languages))
        tokens = [AddedToken(f">>{language}<<", special=True, rstrip=True, normalized=False) for language in new]
        self.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)

    def _build_translation_inputs(self, text, return_tensors, src_lang=None, tgt_lang=None, **kwargs):
        """Encode a source with the language it is to be translated into; translation pipelines call this.

        Tokenizers of one language look at none; a source may also begin with its language by itself.
        """
        languages = self.languages
        if not languages:
            return self(text, return_tensors=return_tensors, **kwargs)
        text = text.lstrip()
        tags = [tag[0] for tag in LANGUAGE.finditer(text) if tag[1] in languages]
        if len(tags) + (tgt_lang is not None) > 1:
            given = [*tags, *([f"tgt_lang={tgt_lang!r}"] if tgt_lang is not None else [])]
            raise ValueError(f"A text has one target language, but here are {' and '.join(given)}. Leave one of them.")
        if tgt_lang is not None:
            if tgt_lang not in languages:
                near = difflib.get_close_matches(tgt_lang, languages, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"tgt_lang={tgt_lang!r} is none of {', '.join(languages)}.{hint}")
            text = tag_language(text, tgt_lang)
        elif not tags or not text.startswith(tags[0]):
            raise ValueError(
                f"Into which language? Give tgt_lang=..., one of {', '.join(languages)}, or begin the text with "
                f">>{languages[0]}<<."
            )
        return self(text, return_tensors=return_tensors, **kwargs)

    def _save_pretrained(self, *args, **kwargs):
        saved = copy.copy(self)
        saved._tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        saved._tokenizer.no_truncation()  # what the last call asked for is no property of the tokenizer
        saved._tokenizer.no_padding()
        return super(FunTransformerTokenizer, saved)._save_pretrained(*args, **kwargs)
