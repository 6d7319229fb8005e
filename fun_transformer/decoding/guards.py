"""Generate once more what has faults, each time in another way, and cut off the loops from which no way leads out.

`guarded` works with any function that turns texts into texts; `generator` makes one of a model and its tokenizer.

    >>> guarded(generator(model, tokenizer, num_beams=4), ["你几点钟去学去学去学去学去学去学？"])[0]
    Guarded(text='What time do you go to study?', faults=['loop'], fallback='greedy', left=[], ...)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..pipeline_records import join_records
from ..text_parts import CUTS, LANGUAGE_TAG, split_text
from .faults import FAULTS, find_faults, repeats_of, text_size, without_loops
from .sequences import check_encoder_decoder, eos_ids


@dataclass(frozen=True)
class Output:
    """What was generated for a text.

    Attributes:
        text: The output.
        finished: It ends with `</s>`, rather than at the greatest length.
        extra: What the caller keeps with it, such as scores.
    """

    text: str
    finished: bool = True
    extra: Any = None


@dataclass(frozen=True)
class Guarded(Output):
    """An output that was looked at, and made again where it had faults.

    Attributes:
        faults: What was wrong at first, see `find_faults`.
        fallback: How this output was made then: a name of `FALLBACKS`, or "cut"; None for the first output.
        left: What is wrong still.
        extra: Of the caller; None for an output that was put together of parts or cut.
    """

    faults: list[str] = ()  # type: ignore[assignment]
    fallback: str | None = None
    left: list[str] = ()  # type: ignore[assignment]


Generate = Callable[..., list[Output]]  # (texts, **generate_kwargs) -> an output for each


@dataclass(frozen=True)
class Fallback:
    """Another way to generate.

    Attributes:
        faults: What it may cure.
        options: For `generate`.
        parts: Each sentence, or clause of the only one, is a text of its own.
    """

    faults: frozenset[str]
    options: dict[str, Any]
    parts: bool = False


def _fallback(*faults: str, parts: bool = False, **options: Any) -> Fallback:
    return Fallback(frozenset(faults), options, parts)


# In the order in which they are tried, chosen by measurement (docs/decoding.md): sentences one by one mend most, where
# there are several; then greedy search, which is quick and with no pair of tokens twice leaves its loops.
LONGEST_SENTENCE = 120  # letters, or a third as many hanzi: what is longer is cut where there is no clause
MENDABLE = ("loop", "empty", "unfinished", "long", "short")
FALLBACKS = {
    "parts": _fallback(*MENDABLE, parts=True, no_repeat_ngram_size=3),
    "greedy": _fallback(*MENDABLE, num_beams=1, do_sample=False, no_repeat_ngram_size=2),
    "no_repeat": _fallback("loop", "unfinished", "long", no_repeat_ngram_size=3),
    "longer": _fallback("empty", "short", length_penalty=2.0, no_repeat_ngram_size=3),
    "no_copy": _fallback("copy", encoder_no_repeat_ngram_size=2),
}


def guarded(
    generate: Generate,
    sources: Sequence[str],
    is_translation: bool = True,
    fallbacks: Sequence[str] = tuple(FALLBACKS),
) -> list[Guarded]:
    """Generate a text for each source, look for faults, and make again what has some.

    What has faults is tried with each fallback that may cure one of them, until it has none. If all are tried, the
    output with the least bad faults is taken, the first of equals, and a loop is cut off: none is ever left.

    Args:
        generate: Called with a list of texts and keyword arguments for the generation; returns an output for each.
        sources: The source texts.
        is_translation: As in `find_faults`.
        fallbacks: The names of those of `FALLBACKS` to try, in this order.

    Returns:
        An output for each source.

    Raises:
        ValueError: There is no such fallback.
    """
    for name in fallbacks:
        if name not in FALLBACKS:
            raise ValueError(f"{name!r} is no fallback. Choose from {', '.join(FALLBACKS)}.")

    def judge(source: str, output: Output) -> list[str]:
        return find_faults(source, output.text, output.finished, is_translation)

    best = []
    for source, output in zip(sources, generate(list(sources)), strict=True):
        faults = judge(source, output)
        best.append(Guarded(output.text, output.finished, output.extra, faults, None, faults))
    for name in fallbacks:
        ill = [i for i, one in enumerate(best) if FALLBACKS[name].faults & set(one.left)]
        for i, output in _generate_again(generate, [(i, sources[i]) for i in ill], FALLBACKS[name]):
            left = judge(sources[i], output)
            if _badness(left) < _badness(best[i].left):
                best[i] = Guarded(output.text, output.finished, output.extra, best[i].faults, name, left)
    return [_cut(source, one, is_translation) if "loop" in one.left else one for source, one in zip(sources, best)]


def generator(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32, **generate_kwargs: Any
) -> Generate:
    """Return a function for `guarded` that generates with a model.

    Args:
        model: An encoder-decoder of transformers.
        tokenizer: Its tokenizer, with its languages set where it has several.
        batch_size: Texts generated for at a time.
        generate_kwargs: For `model.generate`; those of a fallback are laid over them.

    Returns:
        A function from a list of texts to their outputs, whose `extra` is the list of generated ids.

    Raises:
        ValueError: The model is no encoder-decoder, or several sequences are to be returned.
    """
    check_encoder_decoder(model)
    if generate_kwargs.get("num_return_sequences", 1) != 1:
        raise ValueError("num_return_sequences makes several outputs of a text, of which none is the one to guard.")
    end = eos_ids(model)

    def generate(texts: list[str], **options: Any) -> list[Output]:
        outputs: dict[int, Output] = {}
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(texts), batch_size):
            batch = order[start : start + batch_size]
            encoded = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True).to(model.device)
            inputs = {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}
            output_ids: torch.Tensor = model.generate(**inputs, **generate_kwargs | options)  # type: ignore[operator]
            for i, ids, text in zip(batch, output_ids, tokenizer.batch_decode(output_ids, skip_special_tokens=True)):
                outputs[i] = Output(text, is_finished(ids, end), ids.tolist())
        return [outputs[i] for i in range(len(texts))]

    return generate


def is_finished(output_ids: torch.Tensor, eos_token_ids: list[int]) -> bool:
    """Tell whether what was generated, (1 + target_len) with the start token, has an end."""
    return any(token_id in eos_token_ids for token_id in output_ids[1:].tolist())


def split_sentences(text: str) -> list[str]:
    """Cut a text after each paragraph and sentence, or a single sentence after each clause; without empty parts.

    What is far longer than sentences are, as a text without punctuation, is cut further, between words where it can.
    A language that the text begins with (`>>en<<`) comes before each part.
    """
    if tag := LANGUAGE_TAG.match(text):
        return [f"{tag[0]} {part.lstrip()}" for part in split_sentences(text[tag.end() :])]

    def fits(part: str) -> bool:
        return text_size(part) <= LONGEST_SENTENCE

    parts = [text]
    for cuts in (CUTS[:2], CUTS[2:3]):
        ends = sorted({match.end() for cut in cuts for match in cut.finditer(text)} | {len(text)})
        parts = [text[start:end] for start, end in zip([0, *ends], ends)]
        if sum(bool(part.strip()) for part in parts) > 1:
            break
    return [piece for part in parts for piece in split_text(part, fits) if piece.strip()] or [text]


def _generate_again(generate: Generate, numbered: list[tuple[int, str]], fallback: Fallback):
    """Return (number, output) of the texts that this fallback applies to."""
    parts = {i: split_sentences(text) if fallback.parts else [text] for i, text in numbered}
    if fallback.parts:
        parts = {i: texts for i, texts in parts.items() if len(texts) > 1}
    if not parts:
        return []
    outputs = iter(generate([part for texts in parts.values() for part in texts], **fallback.options))
    again = []
    for i, texts in parts.items():
        made = [next(outputs) for _ in texts]
        if len(made) == 1:
            again.append((i, made[0]))
            continue
        text = join_records(texts, [{"guarded_text": output.text} for output in made])["guarded_text"]
        again.append((i, Output(text, all(output.finished for output in made))))
    return again


def _badness(faults: list[str]) -> list[int]:
    """Return what is greater for worse faults: one for each kind, the worst kind first."""
    return [int(name in faults) for name in FAULTS]


def _cut(source: str, output: Guarded, is_translation: bool) -> Guarded:
    """Say what is repeated in a loop once, and leave out the repetitions."""
    text = without_loops(output.text, repeats_of(source))
    left = find_faults(source, text, output.finished, is_translation)
    return Guarded(text, output.finished, None, output.faults, "cut", left)
