"""Writes a model in another format, whole or not at all, and compares the two."""

import copy
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..files import commit_folder, remove_folder, replacing
from ..frontends import is_text, refuse_features
from ..pipeline_fun_transformer import TranslationPipeline
from .formats import ONE_SEARCH, Answer, Format
from .parity import Agreement, count_equal, random_features, random_texts

if TYPE_CHECKING:
    from ..evaluation.data import EvaluationData

BEAMS = (1, 5)  # searches that are compared
LEAST_EQUAL = 0.97  # of the answers in float32, but one may differ: sums in another order decide between equal tokens
LEAST_EQUAL_QUANTIZED = 0.5  # of the greedy answers, where no scores say what a quantization costs
MOST_LOST = {"bleu": 0.2, "per": 0.1}  # by a quantization, in points
MOST_TOKENS = 256  # of an answer where the model says nothing
RANDOM_TOKENS = 40  # of an answer to a random text, which has no end of its own


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares.

    Attributes:
        output: The file or folder.
        num_bytes: Its size.
        agreements: With the model, for each search.
        scores: Of each metric, before and after; empty without references.
        lost: What is worse than allowed, in words; empty where nothing is.
    """

    output: Path
    num_bytes: int
    agreements: list[Agreement]
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


class NotKept(ValueError):
    """An exported model that answers differently or loses quality, and was removed again.

    Attributes:
        exported: What it was.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__(f"{exported.output} is not kept: {'; '.join(exported.lost)}. With force it is.")
        self.exported = exported


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    format: Format,
    output: str | Path,
    quantization: str | None = None,
    data: "EvaluationData | Sequence[str] | None" = None,
    force: bool = False,
) -> Exported:
    """Write a model in another format, and compare its answers with the model's own.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        format: What to write, by `find_format`.
        output: A folder that does not exist or is empty, or a file.
        quantization: One of the format's.
        data: Sources to compare on, with references or without; None: random tokens. All are searched without
            sampling, whatever the generation config says.
        force: Keep what answers differently or loses quality.

    Returns:
        Its size, agreements and scores.

    Raises:
        ValueError: The format cannot say the model, `output` exists, or `data` is empty.
        NotKept: It answers differently, or loses more quality than allowed.
    """
    output = check_output(Path(output), format)
    if data is not None and not getattr(data, "sources", data):
        raise ValueError("data has no sources to compare on. Give some, or None for random texts.")
    if data is not None:
        refuse_features(model.config, "A comparison on data")
    if quantization and quantization not in format.quantizations:
        allowed = f"Choose one of {', '.join(format.quantizations)}" if format.quantizations else "Leave it out"
        raise ValueError(f"The format has no quantization {quantization}. {allowed}.")
    model = copy.deepcopy(model).cpu().float().eval()
    format.check(model, tokenizer, quantization)
    partial = hidden(output)
    discard(output)
    try:
        (partial.parent if format.suffix else partial).mkdir(parents=True, exist_ok=True)
        format.write(copy.deepcopy(model), tokenizer, partial, quantization)
        copy_processor(model, partial)
        exported = compare(model, tokenizer, format.open(partial), output, data, bool(quantization))
        if exported.lost and not force:
            raise NotKept(exported)
        format.describe(partial, exported.agreements, exported.scores)
    except BaseException:
        discard(output)
        raise
    keep(output)
    return exported


def copy_processor(model: PreTrainedModel, folder: Path) -> None:
    """Copy what makes features of recordings or pictures from the model's own folder, where there is some."""
    if not is_text(model.config) and folder.is_dir():
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (file := Path(str(model.name_or_path)) / name).is_file():
                shutil.copy(file, folder)


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    theirs: Answer,
    output: Path,
    data: "EvaluationData | Sequence[str] | None",
    is_quantized: bool,
) -> Exported:
    """Answer the same texts by both, and say what agrees."""
    references = getattr(data, "references", [])
    texts: Any = random_sources(model, tokenizer) if data is None else getattr(data, "sources", data)
    sources = list(texts)
    longest = longest_answer(model.generation_config)
    if data is None:
        longest = min(longest, RANDOM_TOKENS)
    ours = answer_with(model, tokenizer)
    answers = {beams: (ours(sources, beams, longest), theirs(sources, beams, longest)) for beams in BEAMS}
    agreements = [count_equal(beams, sources, *pair) for beams, pair in answers.items()]
    scores = score(sources, references, *answers[BEAMS[-1]]) if references else {}
    lost = []
    for name, most in MOST_LOST.items() if is_quantized else ():
        before, after = scores.get(name, (0.0, 0.0))
        worse = after - before if name == "per" else before - after
        if worse > most:
            lost.append(f"{name} goes from {before:.2f} to {after:.2f}, by more than {most}")
    for found in agreements:
        if is_quantized:
            is_worse = not scores and found.num_beams == 1 and found.equal < LEAST_EQUAL_QUANTIZED * found.texts
        else:
            is_worse = found.equal < min(found.texts - 1, LEAST_EQUAL * found.texts)
        if is_worse:
            lost.append(f"{found}, and no references say what that costs" if is_quantized else str(found))
    return Exported(output, size_of(hidden(output)), agreements, scores, lost)


def random_sources(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list:
    """Return random texts, or noise for a model that reads something else."""
    return random_texts(tokenizer) if is_text(model.config) else random_features(model.get_encoder().front_end)


def longest_answer(generation: GenerationConfig) -> int:
    """Return how many tokens the answers of a model may have."""
    if generation.max_new_tokens:
        return generation.max_new_tokens
    return max(generation.max_length - 1, 1) if generation.max_length else MOST_TOKENS  # the start token counts


def answer_with(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Answer:
    """Return a model of transformers as a function that answers texts, or features."""
    if not is_text(model.config):
        return answer_features_with(model, tokenizer)
    pipe = TranslationPipeline(model, tokenizer, device=-1)

    def answer(texts: Sequence[str], num_beams: int, max_new_tokens: int) -> list[str]:
        options = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, **ONE_SEARCH}
        records = pipe(list(texts), batch_size=32, **options)
        return [record["translation_text"] for record in records]

    return answer


def answer_features_with(model: Any, tokenizer: PreTrainedTokenizerBase) -> Answer:
    """Return a model that reads speech or pictures as a function that answers features, one after the other."""

    def answer(features: Sequence[torch.Tensor], num_beams: int, max_new_tokens: int) -> list[str]:
        options = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, **ONE_SEARCH}
        rows = [model.generate(**{model.main_input_name: one}, **options)[0] for one in features]
        return [str(tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    return answer


def score(
    sources: Sequence[str], references: Sequence[Sequence[str]], before: Sequence[str], after: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Score both kinds of answers by the metrics that fit the kind of texts."""
    from ..evaluation.scores import Scoring
    from ..training.recipe.texts import CHOICES, kind_of

    kinds = [kind_of(sources), kind_of([row[0] for row in references])]
    names = CHOICES["sentence" if "sentence" in kinds else kinds[1]].metrics
    scoring = Scoring(names, references)
    first, second = scoring.score(before, references), scoring.score(after, references)
    return {name: (first[name], second[name]) for name in names}


def check_output(output: Path, format: Format) -> Path:
    """Return where to write.

    Raises:
        ValueError: It exists already, or has a name that the format does not take.
    """
    if format.suffix and output.suffix != format.suffix:
        raise ValueError(f"-o {output} must end in {format.suffix}, as such files do.")
    format.check_name(output)
    if output.exists() and (format.suffix or not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists. Give another name with -o, or remove it first.")
    return output


def hidden(output: Path) -> Path:
    """Return the name that an output has until it is whole."""
    return output.with_name(f".{output.name}.{os.getpid()}.partial{output.suffix}")


def keep(output: Path) -> None:
    """Give what was written its name."""
    partial = hidden(output)
    if partial.is_dir():
        commit_folder(partial, output)
        return
    with replacing(partial, output):
        pass


def discard(output: Path) -> None:
    """Remove what was written."""
    partial = hidden(output)
    if partial.is_dir():
        remove_folder(partial)
    partial.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
