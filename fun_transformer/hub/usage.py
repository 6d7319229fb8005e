"""What a card says about loading a model: with this package, with code that is trusted, or with transformers alone."""

from dataclasses import dataclass

PLACEHOLDER = "PATH_OR_NAME_OF_THIS_MODEL"
BASE_PLACEHOLDER = "PATH_OR_NAME_OF_ITS_BASE_MODEL"
# The task that a head is for, where the card does not name one.
HEAD_TASKS = {
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForSpeechSeq2Seq": "automatic-speech-recognition",
    "AutoModelForImageTextToText": "image-to-text",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
}
# Of the heads whose source is no text: what makes features of it, and how a pipeline is called.
FEATURE_MAKERS = {
    "AutoModelForSpeechSeq2Seq": (
        "AutoFeatureExtractor",
        'pipe("recording.wav")  # a file needs ffmpeg, an array none',
    ),
    "AutoModelForImageTextToText": ("AutoImageProcessor", 'pipe("picture.png")'),
}
GENERATING = ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM")

OURS = """
## How to use it with{out} the package
{remark}
```python
{first}from transformers import {imported}, pipeline

model = {auto_class}.from_pretrained("{repo_id}"{trust})
tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{trust})
{extractor}
pipe = pipeline("{task}", {loaded})
{call}```
"""
PLAIN = """
## How to use it

```python
{code}
```
"""
AS_PIPELINE = """
## How to use it as a pipeline

transformers 5 has no pipeline for this task. `pip install fun-transformer` brings one:

```python
import fun_transformer
from transformers import pipeline

pipe = pipeline("{task}", model="{repo_id}"{trust})
print(pipe("{example}"))
```
"""


@dataclass(frozen=True)
class Loading:
    """What a model needs to be loaded.

    Attributes:
        auto_class: The Auto class of its head.
        needs_package: Whether it has code of this package or of a plug-in of it.
        needs_trust: Whether the code of its family is in its repo and not in transformers.
        base: Where the folder holds an adapter alone, the model that it is for; else None.
    """

    auto_class: str
    needs_package: bool = True
    needs_trust: bool = False
    base: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is used by the lines of `plain_code`, which is how models of other families and adapters are."""
        return self.base is not None or not self.needs_package


def plain_code(name: str, loading: Loading, example: str = '"text"') -> str:
    """Return the lines of Python that load a model and use it once, without a pipeline.

    Args:
        name: Of the model.
        loading: What it needs.
        example: A text in quotes.
    """
    auto_class, is_adapter = loading.auto_class, loading.base is not None
    generates = auto_class in GENERATING
    trust = ", trust_remote_code=True" if loading.needs_trust else ""
    imported = [auto_class, "AutoTokenizer", *["GenerationConfig"] * (generates and is_adapter)]
    lines = ["import fun_transformer"] * loading.needs_package + ["from peft import PeftModel"] * is_adapter
    lines += [f"from transformers import {', '.join(imported)}", ""]
    lines += [f'tokenizer = AutoTokenizer.from_pretrained("{name}"{trust})']
    if is_adapter:
        lines += [f'base = {auto_class}.from_pretrained("{loading.base}"{trust})']
        lines += [f'model = PeftModel.from_pretrained(base, "{name}")']
    else:
        lines += [f'model = {auto_class}.from_pretrained("{name}"{trust})']
    if auto_class in HEAD_TASKS and auto_class not in FEATURE_MAKERS:
        lines += [f'inputs = tokenizer({example}, return_tensors="pt")']
    if generates:
        more = ", generation_config=config" if is_adapter else ""
        lines += [f'config = GenerationConfig.from_pretrained("{name}")'] * is_adapter
        lines += [f"print(tokenizer.decode(model.generate(**inputs{more})[0], skip_special_tokens=True))"]
    elif auto_class in HEAD_TASKS and auto_class not in FEATURE_MAKERS:
        lines += ["print(model(**inputs).logits)"]
    return "\n".join(lines)


def missing_usage(body: str, task: str, repo_id: str, loading: Loading, has_pipeline: bool) -> str:
    """Return what a card lacks about how its model is used.

    Args:
        body: The text of the card, with the model's name in it.
        task: The pipeline that the model is for.
        repo_id: The model's name.
        loading: What it needs.
        has_pipeline: Whether the task's pipeline is one of this package.
    """
    if not loading.is_plain:
        added = (
            "" if "import fun_transformer" in body else _our_usage(task, repo_id, loading.auto_class, trusted=False)
        )
        is_told = "trust_remote_code" in body
        return added if is_told else added + _our_usage(task, repo_id, loading.auto_class, trusted=True)
    is_told = loads_model(body, repo_id)
    added = "" if is_told else PLAIN.format(code=plain_code(repo_id, loading))
    if has_pipeline and loading.base is None and "import fun_transformer" not in body:
        trust = ", trust_remote_code=True" if loading.needs_trust else ""
        example = "picture.png" if task == "image-to-text" else "text"
        added += AS_PIPELINE.format(task=task, repo_id=repo_id, trust=trust, example=example)
    return added


def loads_model(body: str, repo_id: str) -> bool:
    """Whether a text has a line that loads a model of this name."""
    return any("from_pretrained(" in line and f'"{repo_id}"' in line for line in body.splitlines())


def _our_usage(task: str, repo_id: str, auto_class: str, trusted: bool) -> str:
    """Say how to use a model: where the package is installed, or without it, in code that is trusted."""
    trust = ", trust_remote_code=True" if trusted else ""
    # The task "feature-extraction" would load the whole model with AutoModel, not the encoder.
    is_encoder = auto_class == "AutoModelForTextEncoding"
    maker, call = FEATURE_MAKERS.get(auto_class, ("", ""))
    extractor = f'extractor = {maker}.from_pretrained("{repo_id}")\n' if maker else ""
    return OURS.format(
        imported=", ".join([*[maker] * bool(maker), auto_class, "AutoTokenizer"]),
        extractor=extractor,
        call=f"{call}\n" if call else "",
        out="out" if trusted else "",
        remark="\nThe code is beside the weights. Read it, then allow it to run:\n" if trusted else "",
        first="" if trusted else "import fun_transformer\n",
        loaded="model=model, tokenizer=tokenizer" if is_encoder else f'model="{repo_id}"{trust}',
        **{"task": task, "repo_id": repo_id, "auto_class": auto_class, "trust": trust},
    )
