"""What is scored: a file of finished outputs, or a model that answers first."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    TextClassificationPipeline,
)

from ..analysis import cross_attention
from ..analysis.attention import AttentionMap
from ..decoding import Ensemble, check_tokenizers
from ..frontends import is_text
from ..hub.finding import find_model
from ..hub.weights import folder_damage
from ..number_types import AUTO, set_dtype
from ..pipeline_fun_transformer import TranslationPipeline, takes_languages
from ..text_parts import check_tagged, unknown_tags
from ..training.recipe.names import known_arguments
from ..training.recipe.reading import read_recipe
from ..training.recipe.texts import CHOICES, kind_of
from ..training.tables import METRICS
from .data import EvaluationData, read_outputs

EXAMPLES = 2000  # rows that show what kind of text they are
CHUNK_BATCHES = 16  # this many batches are sorted by length at a time


@dataclass(frozen=True)
class Generation:
    """How models answer (None: the model's own setting), and whether a model may bring code of its own."""

    num_beams: int | None = None
    max_new_tokens: int | None = None
    batch_size: int = 32
    src_lang: str | None = None
    tgt_lang: str | None = None
    device: str | None = None
    dtype: str = AUTO
    trust_remote_code: bool = False


@dataclass
class System:
    """A system that is scored.

    Attributes:
        name: In tables.
        outputs: (rows,) finished ones; empty until the model has answered.
        pipe: The model's pipeline; None for a file.
        is_classifier: Whether it answers with a label.
    """

    name: str
    outputs: list[str] = field(default_factory=list)
    pipe: Any = None
    is_classifier: bool = False

    def answer(self, sources: Sequence[str], batch_size: int) -> None:
        """Let the model answer each source; a file has its outputs already."""
        if self.pipe is None:
            return
        unseen = Counter(tag for source in sources for tag in unknown_tags(self.pipe.tokenizer, source))
        if unseen:
            print(f"{self.name}: tags that training never saw: {', '.join(sorted(unseen))}", file=sys.stderr)
        chunk = batch_size * CHUNK_BATCHES
        with tqdm(total=len(sources), desc=self.name, unit=" rows", disable=not sys.stderr.isatty()) as bar:
            for start in range(0, len(sources), chunk):
                texts = list(sources[start : start + chunk])
                records = self.pipe(texts, batch_size=batch_size)
                key = "label" if self.is_classifier else "translation_text"
                self.outputs += [" ".join(record[key].splitlines()) for record in records]
                bar.update(len(texts))

    def attention(self, source: str, output: str) -> AttentionMap | None:
        """Return what the model attends to when it writes an output; None of files and classifiers."""
        if self.pipe is None or self.is_classifier or not output:
            return None
        try:
            return cross_attention(self.pipe.model, self.pipe.tokenizer, self.pipe.prefix + source, output)
        except ValueError:  # this kind of model returns no weights
            return None


def load_systems(
    names: Sequence[Sequence[str]], data: EvaluationData, generation: Generation, column: str | None = None
) -> list[System]:
    """Read files of outputs and load models, in this order, so that a mistake in a file costs no time.

    Args:
        names: Of each system: a file, a model folder, the folder of a run, a name on the Hub; or those of several
            models that decide each token together.
        data: What they answer.
        generation: How models answer.
        column: Of the outputs in tables.

    Raises:
        ValueError: A file or a model cannot be used, or the data have no sources for a model.
        OSError: There is no such model.
    """
    found: dict[int, System] = {}
    titles = titles_of(names)
    for number, members in sorted(enumerate(names), key=lambda item: not Path(item[1][0]).is_file()):
        name = members[0]
        if Path(name).is_file():
            found[number] = System(titles[number], read_outputs(name, data, column))
        elif not data.sources:
            raise ValueError(
                f"{name} is no file of outputs, and {data.name} has no sources for a model. Give --source FILE, or a "
                "table with a column of sources."
            )
        else:
            found[number] = load_models(members, titles[number], generation)
            check_tagged(found[number].pipe.tokenizer, data.sources)
    return [found[number] for number in range(len(names))]


def titles_of(names: Sequence[Sequence[str]]) -> list[str]:
    """Return short names for tables: the last part of each path, or all of it where that names two systems."""
    short = [" + ".join(Path(name).name or name for name in members) for members in names]
    times = Counter(short)
    titles = [part if times[part] == 1 else " + ".join(members) for part, members in zip(short, names)]
    if twice := [title for title, count in Counter(titles).items() if count > 1]:
        raise ValueError(f"{twice[0]} is named twice. Compare different systems.")
    return titles


def metrics_of(name: str, data: EvaluationData) -> list[str]:
    """Return the metrics that a model's run was scored with, as the recipe beside the model has them, or means.

    Args:
        name: Of the model's folder, or of its run.
        data: What it answers; where the recipe leaves the choice open, their kind of text decides, as in training.

    Returns:
        The names; BLEU and chrF where no recipe is there.
    """
    folder = Path(name)
    folders = [folder, *([folder.parent] if folder.resolve().name == "model" else [])]
    recipe = next((path / "recipe.yaml" for path in folders if (path / "recipe.yaml").is_file()), None)
    if recipe is None:
        return list(CHOICES["sentence"].metrics)
    found = read_recipe(str(recipe), known_arguments(), warns=False).get("generation.metrics", AUTO)
    names = [part.strip() for part in found.split(",")] if isinstance(found, str) else list(found or ())
    if names and all(part in METRICS and METRICS[part].compares_texts for part in names):
        return names
    kinds = [kind_of(data.sources[:EXAMPLES]), kind_of([texts[0] for texts in data.references[:EXAMPLES]])]
    return list(CHOICES["sentence" if "sentence" in kinds else kinds[1]].metrics)


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter."""
    return any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))


def base_of_adapter(place: str) -> str | None:
    """Return the model that an adapter in a folder is for; None where it is no adapter."""
    folder = Path(place)
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return None
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]


def model_folder(name: str) -> str:
    """Return where a model is: the folder `model` of a run, or what was named.

    Raises:
        ValueError: It is a folder without a model, or the name is empty.
        OSError: There is no such folder, and the Hub cannot be reached.
    """
    if not name.strip():
        return find_model(name)  # refuses it
    path = Path(name)
    if holds_model(path / "model") and not (path / "config.json").is_file():
        path = path / "model"
    if not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ValueError(f"There is no file or model folder {name}.")
        return find_model(name)
    if not holds_model(path):
        raise ValueError(f"{name} holds no config.json: it is neither a model folder nor a finished run.")
    if damage := folder_damage(path):
        raise ValueError(f"{name} is damaged: {' '.join(damage)}")
    return str(path)


def load_models(names: Sequence[str], title: str, generation: Generation) -> System:
    """Load a model that answers, or encoder-decoders of one vocabulary that decide each token together.

    Raises:
        ValueError: It is another kind of model, cannot be loaded, or the vocabularies differ.
        OSError: There is no such model.
    """
    loaded = [load_model(name, generation) for name in names]
    model, tokenizer, is_classifier = loaded[0]
    if len(names) > 1:
        if any(kind for _, _, kind in loaded):
            raise ValueError(f"{title} has a classifier in it. Models that decide together give texts.")
        check_tokenizers([other for _, other, _ in loaded], names)
        model = Ensemble([member for member, _, _ in loaded])
    try:
        pipe = build_pipeline(model, tokenizer, generation, is_classifier)
    except (OSError, ImportError):
        raise
    except Exception as error:  # of a device or a language
        raise ValueError(f"The model {title} cannot be used: {error}") from error
    return System(title, [], pipe, is_classifier)


def load_model(name: str, generation: Generation) -> tuple[Any, Any, bool]:
    """Load an encoder-decoder, or a classifier of texts.

    Returns:
        The model, its tokenizer, and whether it is a classifier.

    Raises:
        ValueError: It is another kind of model, or cannot be loaded.
        OSError: There is no such model.
    """
    place = model_folder(name)
    try:
        trust = {"trust_remote_code": generation.trust_remote_code}
        base = base_of_adapter(place)
        config = AutoConfig.from_pretrained(base or place, **trust)
        is_classifier = str((config.architectures or [""])[0]).endswith("ForSequenceClassification")
        if not is_classifier and not config.is_encoder_decoder:
            raise ValueError(
                f"{(config.architectures or [config.model_type])[0]} answers with neither a text nor a label. Score "
                "an encoder-decoder or a classifier of texts, a run (evaluate RUN), or a file of finished outputs."
            )
        if not is_text(config):
            raise ValueError(
                f"its source is {config.source_modality}, and the rows here are texts. Score it by its run, which "
                "knows how files are read: fun-transformer evaluate RUN [--data.test.dataset FILE]."
            )
        auto: Any = AutoModelForSequenceClassification if is_classifier else AutoModelForSeq2SeqLM
        model = auto.from_pretrained(place, dtype=generation.dtype, **trust).eval()
        if base and (Path(place) / "generation_config.json").is_file():  # the base's was loaded
            model.generation_config = GenerationConfig.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place, **trust)
    except OSError as error:
        if Path(place).exists():
            raise
        raise OSError(f"There is no folder {name} here, and the Hub did not give a model {name}: {error}") from error
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes a library raise
        raise ValueError(f"The model {name} cannot be used: {error}") from error
    return model, tokenizer, is_classifier


def build_pipeline(model: Any, tokenizer: Any, generation: Generation, is_classifier: bool) -> Any:
    """Return the pipeline of a model.

    Raises:
        ValueError: Languages are named for a model that knows none.
    """
    device: dict[str, Any] = {"device": generation.device} if generation.device else {}
    if is_classifier:
        pipe = TextClassificationPipeline(model=model, tokenizer=tokenizer, **device)
        set_dtype(pipe.model, generation.dtype)
        return pipe
    names = ("num_beams", "max_new_tokens", "src_lang", "tgt_lang")
    options: dict[str, Any] = {name: value for name in names if (value := getattr(generation, name)) is not None}
    task = "translation"
    if generation.src_lang and generation.tgt_lang:
        task = f"translation_{generation.src_lang}_to_{generation.tgt_lang}"  # T5 knows its tasks by such names
    if (generation.src_lang or generation.tgt_lang) and not takes_languages(model, tokenizer, task):
        raise ValueError("it has one language on each side: leave out --src-lang and --tgt-lang.")
    return TranslationPipeline(model, tokenizer, task=task, dtype=generation.dtype, **device, **options)
