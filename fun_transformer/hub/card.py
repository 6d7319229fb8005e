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

HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
PLACEHOLDER = "PATH_OR_NAME_OF_THIS_MODEL"
TEMPLATE = Path(__file__).with_name("card_template.md")
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
    """

    data: str
    command: str
    details: dict[str, Any]
    scores: Sequence[Score] = ()
    samples: Sequence[dict[str, Any]] = ()


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
            dataset_type="text",
            dataset_name=facts.data,
            metric_type=score.metric,
            metric_value=round(score.value, 4),
            metric_name=f"{score.label}, {score.split}",
        )
        for score in facts.scores
    ]
    data = ModelCardData(
        library_name="transformers",
        tags=["fun_transformer", task],
        model_name=name if results else None,
        eval_results=results or None,
    )
    samples = facts.samples[:: max(1, len(facts.samples) // SHOWN_SAMPLES)][:SHOWN_SAMPLES]
    rows = [[sample["source"], sample["references"][0], sample["prediction"]] for sample in samples]
    example = facts.samples[len(facts.samples) // 2]["source"] if facts.samples else "text"
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        task=task,
        command=without_folders(facts.command),
        placeholder=PLACEHOLDER,
        example=json.dumps(example, ensure_ascii=False),
        fact_table=table(["", ""], [["data", facts.data], *facts.details.items()]),
        score_table=score_table(facts.scores) if facts.scores else "",
        signatures=sorted({f"{score.label}: `{score.signature}`" for score in facts.scores if score.signature}),
        sample_table=table(["source", "reference", "model"], rows) if rows else "",
    )
    return f"{str(card).rstrip()}\n"


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

USAGE = """
## How to use it with{out} the package
{remark}
```python
{first}from transformers import {auto_class}, AutoTokenizer, pipeline

model = {auto_class}.from_pretrained("{repo_id}"{trust})
tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{trust})

pipe = pipeline("{task}", {loaded})
```
"""
# The task that a head is for, where the card does not name one.
HEAD_TASKS = {
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
}


def complete_card(card: str, repo_id: str, auto_class: str, metadata: dict[str, Any]) -> str:
    """Add to a card the metadata and the instructions that it lacks, and leave the rest as it is.

    Args:
        card: The card as it is; empty where there is none.
        repo_id: The name on the Hub, which replaces the placeholder in the instructions.
        auto_class: The Auto class of the model's head.
        metadata: Fields for the card's header, such as license and language, which win over those in it.

    Returns:
        The card.

    Raises:
        ValueError: The header is no YAML mapping.
    """
    card = card.replace("\r\n", "\n")
    match = HEADER.match(card)
    header = read_header(card)
    body = card[match.end() :] if match else card
    task = default_task(header | metadata, auto_class)
    defaults = {"library_name": "transformers", "pipeline_tag": task, "tags": ["fun_transformer"]}
    body = body.replace(PLACEHOLDER, repo_id) or f"\n# {repo_id.split('/')[-1]}\n"
    if "import fun_transformer" not in body:
        body += usage(task, repo_id, auto_class, trusted=False)
    if "trust_remote_code" not in body:
        body += usage(task, repo_id, auto_class, trusted=True)
    wanted = defaults | header | metadata
    if match and wanted == header:
        text = match[1]  # with its comments
    else:
        text = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).strip()
    return f"---\n{text}\n---\n{body}"


def usage(task: str, repo_id: str, auto_class: str, trusted: bool) -> str:
    """Say how to use a model: where the package is installed, or without it, in code that is trusted."""
    trust = ", trust_remote_code=True" if trusted else ""
    # The task "feature-extraction" would load the whole model with AutoModel, not the encoder.
    is_encoder = auto_class == "AutoModelForTextEncoding"
    return USAGE.format(
        out="out" if trusted else "",
        remark="\nThe code is beside the weights. Read it, then allow it to run:\n" if trusted else "",
        first="" if trusted else "import fun_transformer\n",
        loaded="model=model, tokenizer=tokenizer" if is_encoder else f'model="{repo_id}"{trust}',
        **{"task": task, "repo_id": repo_id, "auto_class": auto_class, "trust": trust},
    )


def read_header(card: str) -> dict[str, Any]:
    """Return the metadata at the top of a card; empty where there is none.

    Raises:
        ValueError: It is no YAML mapping.
    """
    match = HEADER.match(card.replace("\r\n", "\n"))
    try:
        header = yaml.safe_load(match[1]) or {} if match else {}
    except yaml.YAMLError as error:
        raise ValueError(f"The metadata at the top of README.md is no YAML: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("The metadata at the top of README.md is no mapping of names to values.")
    return header


def default_task(header: dict[str, Any], auto_class: str) -> str:
    """Return the task that a card names, else translation between two languages, else the usual one of its head."""
    task = HEAD_TASKS.get(auto_class, "feature-extraction")
    languages = header.get("language")
    if task == "text2text-generation" and isinstance(languages, list) and len(languages) > 1:
        task = "translation"
    return header.get("pipeline_tag", task)
