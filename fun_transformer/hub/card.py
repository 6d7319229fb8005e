"""The model card: written after a training, and completed with what other people need when the model is published."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..pipeline_fun_transformer import TASKS
from ..pipeline_image_to_text import IMAGE_TASKS
from .usage import BASE_PLACEHOLDER, HEAD_TASKS, PLACEHOLDER, Loading, missing_usage, plain_code

# What begins like a header, its lines, and what ends it; of any line ends.
HEADER = re.compile(r"\A\s*---[ \t]*(\r\n|\r|\n)(?P<lines>.*?)(?<=[\r\n])---[ \t]*(\r\n|\r|\n|\Z)", re.DOTALL)
TEMPLATE = Path(__file__).with_name("card_template.md")
SOURCE_TYPES = {"automatic-speech-recognition": "audio", "image-to-text": "image"}  # of data, where it is no text
SHOWN_SAMPLES = 8

# ── After a training ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Score:
    """A measured number.

    Attributes:
        metric: What the Hub calls it, such as "bleu".
        label: What people call it, such as "phoneme error rate (%)".
        split: The data that it was measured on, such as "test".
        value: The number.
        signature: How exactly it was measured (sacreBLEU prints one); None where there is nothing to say.
    """

    metric: str
    label: str
    split: str
    value: float
    signature: str | None = None


@dataclass(frozen=True)
class TrainingFacts:
    """What a card says about a training.

    Attributes:
        data: Where the training data came from: names of files or data sets.
        command: The command line of the run. Folders of this machine are taken out of it.
        details: Rows of the table "How it was trained", such as {"steps": "2,200"}.
        scores: In the order in which metrics and splits are to be shown.
        samples: Generated rows, each with `source`, `references` and `prediction`; a few are shown.
        before: Scores of the model that the training started from.
        datasets: Names of the training data on the Hub.
        base_model: Name of the model that the training started from; None for a fresh one.
        base_is_on_hub: Whether this name is one of the Hub.
        source_prefix: What each source has to begin with.
        loading: What the model needs to be loaded, where that is not the pipeline of this package.
    """

    data: str
    command: str
    details: dict[str, Any]
    scores: Sequence[Score] = ()
    samples: Sequence[dict[str, Any]] = ()
    before: Sequence[Score] = ()
    datasets: Sequence[str] = ()
    base_model: str | None = None
    base_is_on_hub: bool = False
    source_prefix: str = ""
    loading: Loading | None = None


def training_card(name: str, task: str, facts: TrainingFacts) -> str:
    """Write the card of a model that was just trained.

    Args:
        name: The model's name.
        task: The pipeline that the model is used with, such as "translation".
        facts: About the training.

    Returns:
        The card, Markdown with metadata at its top.
    """
    results = [
        EvalResult(
            task_type=task,
            dataset_type=SOURCE_TYPES.get(task, "text"),
            dataset_name=facts.data,
            metric_type=score.metric,
            metric_value=round(score.value, 4),
            metric_name=f"{score.label}, {score.split}",
        )
        for score in facts.scores
    ]
    loading = facts.loading
    relation = "finetune" if loading is None or loading.base is None else "adapter"
    data = ModelCardData(
        library_name="peft" if relation == "adapter" else "transformers",
        tags=["fun_transformer", task],
        model_name=name if results else None,
        eval_results=results or None,
        base_model=facts.base_model if facts.base_is_on_hub else None,
        base_model_relation=relation if facts.base_is_on_hub else None,
        datasets=list(facts.datasets) or None,
    )
    samples = facts.samples[:: max(1, len(facts.samples) // SHOWN_SAMPLES)][:SHOWN_SAMPLES]
    rows = [[sample["source"], sample["references"][0], sample["prediction"]] for sample in samples]
    example = facts.samples[len(facts.samples) // 2]["source"] if facts.samples else "text"
    quoted = json.dumps(example, ensure_ascii=False)
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        task=task,
        command=(command := without_folders(facts.command)),
        is_shortened=command != shlex.join(shlex.split(facts.command)),
        placeholder=PLACEHOLDER,
        example=quoted,
        fact_table=table(["", ""], [["data", facts.data], *facts.details.items()]),
        score_table=score_table([*facts.before, *facts.scores]) if facts.scores else "",
        base_model=facts.base_model or "",
        base_is_on_hub=facts.base_is_on_hub,
        prefix=facts.source_prefix,
        code=plain_code(PLACEHOLDER, loading, quoted) if loading else "",
        signatures=sorted({f"{score.label}: `{score.signature}`" for score in facts.scores if score.signature}),
        sample_table=table(["source", "reference", "model"], rows) if rows else "",
    )
    return f"---\n{to_yaml(data.to_dict())}---\n{card.text.rstrip()}\n"


def score_table(scores: Iterable[Score]) -> str:
    """Return a table with a row for each metric and a column for each split."""
    values = {(score.label, score.split): f"{score.value:.2f}" for score in scores}
    labels, splits = (list(dict.fromkeys(names)) for names in zip(*values))
    return table(["", *splits], [[label, *(values.get((label, split), "") for split in splits)] for label in labels])


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    first, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([first, "|" + " --- |" * len(header), *rest])


def without_folders(command: str) -> str:
    """Return a command line without the folders of this machine: of each path in it, the last part is left.

    A shipped recipe (`hub_configs/NAME/recipe.yaml`) keeps its folder, which is its name.
    """
    return shlex.join(_hide_folders(word) for word in shlex.split(command))


def _hide_folders(word: str) -> str:
    """Shorten the paths in one word: the word itself, what follows its =, or the parts of a list."""
    option, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    shortened = _last_part(value)
    if shortened == value:
        quoted = re.sub(r"""(?<=["'])[^"']+(?=["'])""", lambda match: _last_part(match[0]), value)
        shortened = re.sub(r"""[^\s,;"'\[\]{}]+""", lambda match: _last_part(match[0]), quoted)
    return f"{option}{sign}{shortened}"


def _last_part(path: str) -> str:
    """Return the name of a file or folder of this machine, and anything else as it is."""
    leads_out = re.match(r"[/~\\]|\.\.[/\\]|[A-Za-z]:[/\\](?!/)", path)
    is_recipe = re.fullmatch(r"(.*/)?(hub_configs/[^/]+/recipe\.yaml)", path)
    if is_recipe:
        return is_recipe[2]
    if leads_out or ("/" in path and len(path) < 1000 and Path(path).exists()):
        return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return path


# ── When it is published ─────────────────────────────────────────────────────────────────────────────────────────


def complete_card(card: str, repo_id: str, loading: Loading, metadata: dict[str, Any]) -> str:
    """Add to a card the metadata and the instructions that it lacks, and leave each other letter as it is.

    Args:
        card: The card as it is; empty where there is none.
        repo_id: The name on the Hub, which replaces the placeholder in the instructions.
        loading: What the model needs to be loaded.
        metadata: Fields for the card's header, such as license and language, which win over those in it.

    Returns:
        The card.

    Raises:
        ValueError: The header is no YAML mapping, or no field can be added to it.
    """
    header, match = read_header(card), HEADER.match(card)
    body = card[match.end() :] if match else card
    newline = match[1] if match else "\r\n" if "\r\n" in card else "\n"
    given = as_read(metadata)
    task = default_task(header | given, loading.auto_class)
    defaults: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task}
    if loading.needs_package:
        defaults["tags"] = ["fun_transformer"]
    if loading.base is not None:
        defaults |= {"library_name": "peft", "base_model": loading.base, "base_model_relation": "adapter"}
    wanted = {name: value for name, value in defaults.items() if name not in header}
    wanted |= {name: value for name, value in metadata.items() if given[name] != header.get(name)}
    lines = with_fields(match["lines"] if match else "", wanted, newline)
    added = "" if body else f"\n# {repo_id.split('/')[-1]}\n"
    body = body.replace(PLACEHOLDER, repo_id).replace(BASE_PLACEHOLDER, loading.base or BASE_PLACEHOLDER)
    added += missing_usage(body, task, repo_id, loading, has_pipeline=task in TASKS | IMAGE_TASKS)
    return f"---{newline}{lines}---{newline}{body}{added.replace(chr(10), newline)}"


def with_fields(lines: str, wanted: dict[str, Any], newline: str) -> str:
    """Return the lines of a header with other values for some fields; what does not change is left as it is.

    Args:
        lines: The header without what begins and ends it.
        wanted: The fields that are added, or replaced.
        newline: How lines end.

    Raises:
        ValueError: The header is written in a form to which no field can be added.
    """
    root = yaml.compose(lines, yaml.BaseLoader)
    fields = root.value if root else []
    places = {key.value: (key.start_mark.index, last_leaf(value).end_mark.index) for key, value in fields}
    indent = newline + " " * (root.start_mark.column if root else 0)
    expected = as_read(read_fields(lines) | wanted)
    texts = {name: indent.join(to_yaml({name: value}).splitlines()) for name, value in wanted.items()}
    for name in sorted(texts.keys() & places, key=places.__getitem__, reverse=True):  # from the end
        start, end = places[name]
        end = start + len(lines[start:end].rstrip())
        lines = lines[:start] + texts[name] + lines[end:]
    lines += "".join(indent[len(newline) :] + texts[name] + newline for name in texts if name not in places)
    try:
        done = read_fields(lines)
    except ValueError:
        done = {}
    if done != expected:
        raise ValueError(
            f"{', '.join(wanted)} cannot be written into the metadata at the top of README.md. "
            "Give each of its fields a line, such as `license: mit`."
        )
    return lines


def last_leaf(node: yaml.Node) -> yaml.Node:
    """Return the part of a value that it ends with: a list or mapping on lines of its own ends in its last entry."""
    while isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node


class HeaderDumper(yaml.SafeDumper):
    """A writer that puts quotes around text that YAML 1.1 or 1.2 would read as something else, such as 1e3 and no."""


HeaderDumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+.0-9]"), list("-+.0123456789"))


def to_yaml(fields: dict[str, Any]) -> str:
    """Return fields of a header as YAML."""
    return yaml.dump(fields, Dumper=HeaderDumper, sort_keys=False, allow_unicode=True, width=1000)


def as_read(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields as `read_header` returns them: each value as it is written."""
    return read_fields(to_yaml(fields)) if fields else {}


def decode_card(data: bytes) -> str:
    """Return the text of a README.md, with the line ends that it has, and without a byte order mark.

    Raises:
        ValueError: It is no UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "not UTF-8"
        raise ValueError(f"README.md is {encoding}. Save it as UTF-8.") from error


def read_header(card: str) -> dict[str, Any]:
    """Return the metadata at the top of a card, each value as it is written; empty where there is none.

    What a value means depends on who reads it: `no` and `12:30` are words in YAML 1.2, a boolean and a number in 1.1.

    Raises:
        ValueError: It is no YAML mapping, has a field twice or does not end.
    """
    match = HEADER.match(card)
    if match is None and re.match(r"\s*---[ \t]*[\r\n]+[\w-]+:", card):
        raise ValueError("The metadata at the top of README.md does not end: add a line --- after it.")
    return read_fields(match["lines"]) if match else {}


def read_fields(lines: str) -> dict[str, Any]:
    """Return the fields of a header.

    Raises:
        ValueError: It is no YAML mapping, or has a field twice.
    """
    try:
        node = yaml.compose(lines, yaml.BaseLoader)
        fields = yaml.load(lines, yaml.BaseLoader) if node else {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"The metadata at the top of README.md is no YAML: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError("The metadata at the top of README.md is no mapping of names to values.")
    names = [key.value for key, _ in node.value] if node else []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"The metadata at the top of README.md has {', '.join(twice)} twice. Leave one.")
    return fields


def default_task(header: dict[str, Any], auto_class: str) -> str:
    """Return the task that a card names, else translation between two languages, else the usual one of its head."""
    task = HEAD_TASKS.get(auto_class, "feature-extraction")
    languages = header.get("language")
    if task == "text2text-generation" and isinstance(languages, list) and len(languages) > 1:
        task = "translation"
    named = header.get("pipeline_tag")
    return named if named and isinstance(named, str) else task
