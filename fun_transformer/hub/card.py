"""The model card: what training wrote stays, and what a stranger needs is added."""

import re
from typing import Any

import yaml

HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
PLACEHOLDER = "PATH_OR_NAME_OF_THIS_MODEL"

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
    """Adds to a card the metadata and the instructions that it lacks.

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
    text = match[1] if wanted == header else yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).strip()
    return f"---\n{text}\n---\n{body}"


def usage(task: str, repo_id: str, auto_class: str, trusted: bool) -> str:
    """How to use a model: where the package is installed, or without it, in code that is trusted."""
    trust = ", trust_remote_code=True" if trusted else ""
    # The task "feature-extraction" would load the whole model with AutoModel, not the encoder.
    is_encoder = auto_class == "AutoModelForTextEncoding"
    return USAGE.format(
        out="out" if trusted else "",
        remark="\nThe code lies beside the weights. Read it, then allow it to run:\n" if trusted else "",
        first="" if trusted else "import fun_transformer\n",
        loaded="model=model, tokenizer=tokenizer" if is_encoder else f'model="{repo_id}"{trust}',
        **{"task": task, "repo_id": repo_id, "auto_class": auto_class, "trust": trust},
    )


def read_header(card: str) -> dict[str, Any]:
    """The metadata at the top of a card; empty where there is none.

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
    """The task of a card: the one it names, or translation between two languages, or the usual one of its head."""
    task = HEAD_TASKS.get(auto_class, "feature-extraction")
    languages = header.get("language")
    if task == "text2text-generation" and isinstance(languages, list) and len(languages) > 1:
        task = "translation"
    return header.get("pipeline_tag", task)
