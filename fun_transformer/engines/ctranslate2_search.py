"""The words of transformers' `generate` in those of CTranslate2, and what the latter cannot do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

# Beam search of transformers goes on after `num_beams` texts have ended, as long as others may become better; unless
# early_stopping=True. CTranslate2 goes on until num_beams * patience have.
PATIENCE = {True: 1.0, False: 2.0}
RENAMED = {
    "num_beams": "beam_size",
    "num_return_sequences": "num_hypotheses",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "fallback_no_repeat_ngram_size": "no_repeat_ngram_size",
}
# With beams, transformers rules tokens out of log-probabilities and CTranslate2 out of logits: other texts win.
ONLY_GREEDY = {  # and what changes nothing, as 0 does
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
    "min_length": 1,  # the start token counts
}
# Of a guard's second tries, which need not find the text of transformers.
OF_FALLBACKS = {name: f"fallback_{name}" for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size")}
# What the folder says, what both do alike, and what is read below.
HANDLED = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
HANDLED += ("max_new_tokens", "max_length", "min_new_tokens", "min_length", "early_stopping", "use_cache")
HANDLED += ("do_sample", "temperature", "top_k", "top_p", "transformers_version")
HANDLED += ("encoder_no_repeat_ngram_size", "fallback_encoder_no_repeat_ngram_size")
# Options of our pipelines that need a search of transformers.
NO_OPTIONS = ("glossary", "protect", "mbr", "num_beam_groups")
INSTEAD = 'Leave it out, or answer without engine="ctranslate2".'


@dataclass(frozen=True)
class Search:
    """One search of CTranslate2.

    Attributes:
        options: Keyword arguments of `translate_batch`.
        source_ngram: Length of runs of source tokens that outputs must not have; 0 for none.
    """

    options: dict[str, Any]
    source_ngram: int = 0

    @classmethod
    def of(cls, params: dict[str, Any], longest: int) -> "Search":
        """Return the search that parameters of `generate` describe.

        Args:
            params: Those of the call over those of the model.
            longest: Tokens that there are positions for.

        Raises:
            ValueError: CTranslate2 has no such search.
        """
        check_params(params)
        options = {theirs: params[ours] for ours, theirs in RENAMED.items() if params.get(ours) is not None}
        options = {"beam_size": 1, "length_penalty": 1.0} | options
        longest_output = params.get("max_new_tokens") or (params.get("max_length") or 21) - 1
        shortest_output = params.get("min_new_tokens") or max((params.get("min_length") or 0) - 1, 0)
        options |= {
            "max_decoding_length": min(longest_output, longest),
            "min_decoding_length": shortest_output,
            "max_input_length": 0,
            "patience": PATIENCE[params.get("early_stopping") or False],
            "return_end_token": True,
        }
        if params.get("do_sample"):
            options |= {"sampling_topk": 50 if params.get("top_k") is None else params["top_k"]}
            options |= {"sampling_topp": 1.0 if params.get("top_p") is None else params["top_p"]}
            options |= {"sampling_temperature": params.get("temperature") or 1.0}
        ours = "encoder_no_repeat_ngram_size"
        return cls(options, params.get(OF_FALLBACKS[ours]) or params.get(ours) or 0)

    def run(self, translator: Any, sources: list[list[str]], prefixes: list[list[str]]) -> list[Any]:
        """Search for outputs of sources, which begin with prefixes."""
        given = prefixes if any(prefixes) else None
        if not self.source_ngram:
            return translator.translate_batch(sources, given, **self.options)
        results = []
        for source, prefix in zip(sources, prefixes):  # what is ruled out differs from text to text
            starts = range(len(source) - self.source_ngram + 1)
            banned = sorted({tuple(source[start : start + self.source_ngram]) for start in starts})
            results += translator.translate_batch(
                [source], [prefix], suppress_sequences=[list(tokens) for tokens in banned] or None, **self.options
            )
        return results


def check_pipeline_options(options: dict[str, Any]) -> None:
    """Refuse options of a pipeline that CTranslate2 has no search for.

    Raises:
        ValueError: Naming the first one.
    """
    for name in NO_OPTIONS:
        if options.get(name):
            raise ValueError(f"CTranslate2 has no search for {name}. {INSTEAD}")


def rename_fallback(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a guard's second try, in which beams may not repeat n-grams, in CTranslate2's own way."""
    return {OF_FALLBACKS.get(name, name): value for name, value in options.items()}


def check_params(params: dict[str, Any]) -> None:
    """Refuse what CTranslate2 cannot do.

    Raises:
        ValueError: Naming it.
    """
    for name in unknown_params(params):
        raise ValueError(f"CTranslate2 has no {name}. {INSTEAD}")
    if params.get("early_stopping") not in (None, *PATIENCE):
        raise ValueError(f"CTranslate2 has no early_stopping={params['early_stopping']!r}. Choose True or False.")
    beams, sequences = params.get("num_beams") or 1, params.get("num_return_sequences") or 1
    for name, neutral in ONLY_GREEDY.items() if beams > 1 else ():
        if params.get(name) not in (None, 0, neutral):
            raise ValueError(
                f"CTranslate2 ranks texts otherwise with num_beams={beams} and {name}={params[name]}. Leave out "
                f'{name}, give num_beams=1, or answer without engine="ctranslate2".'
            )
    if params.get("do_sample") and beams > 1:
        raise ValueError(f"CTranslate2 samples without beams: leave out num_beams={beams}, or do_sample.")
    if not params.get("do_sample") and sequences > beams:
        raise ValueError(f"num_return_sequences={sequences} needs as many beams, but num_beams={beams}. Raise it.")


def unknown_params(params: dict[str, Any]) -> list[str]:
    """Return the names of the parameters that change something, and that CTranslate2 does not have."""
    plain, unknown = GenerationConfig(), []
    for name, value in params.items():
        is_known = name in RENAMED or name in HANDLED or name.startswith("_")
        if not is_known and value not in (None, False) and value != getattr(plain, name, None):
            unknown.append(name)
    return unknown


def check_generation(config: GenerationConfig, is_for_beams: bool = False) -> None:
    """Refuse a generation config that CTranslate2 cannot follow, before a model is converted.

    Args:
        config: The model's.
        is_for_beams: Any number of beams must go.

    Raises:
        ValueError: Naming the setting.
    """
    params = config.to_diff_dict()
    names = unknown_params(params)
    if is_for_beams:
        names += [name for name, neutral in ONLY_GREEDY.items() if params.get(name) not in (None, neutral)]
    for name in names:
        raise ValueError(
            f"generation_config.json of the model has {name}={params[name]}, which CTranslate2 "
            f"{'does otherwise with beams' if name in ONLY_GREEDY else 'does not have'}. Remove it from that file."
        )


def spell_prefixes(
    next_logits: Callable[[int, list[int]], Any], forced: list[list[int]], processors: Sequence[Any]
) -> list[list[int]]:
    """Return with which tokens each output begins: those forced, then the prefix.

    Several tokens may go on with an unfinished word: the most probable one is taken, then the search is free. A search
    of transformers keeps as many spellings as it has beams.

    Args:
        next_logits: From (row, ids so far) to logits (vocab_size).
        forced: The first tokens of each row.
        processors: Of `generate`.

    Raises:
        ValueError: A processor is none of a prefix.
    """
    from ..decoding.prefix import ForcedPrefix

    others = [type(processor).__name__ for processor in processors if not isinstance(processor, ForcedPrefix)]
    if others:
        raise ValueError(f"CTranslate2 knows no logits_processor such as {others[0]}: leave it out.")
    rows = [list(ids) for ids in forced]
    for processor in processors:
        if len(processor.beginnings) != len(rows):
            raise ValueError(f"{len(processor.beginnings)} prefixes do not belong to {len(rows)} texts.")
        for row, (ids, beginning) in enumerate(zip(rows, processor.beginnings)):
            start = len(ids)
            while allowed := beginning.next_tokens(ids[start:]):
                if len(allowed) > 1:
                    logits = next_logits(row, ids)
                    ids.append(max(allowed, key=lambda number: logits[number]))
                else:
                    ids.append(allowed[0])
    return rows
