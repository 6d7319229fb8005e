"""Find what would not work for other people who load a model from a repo."""

import ast
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tokenizers import Tokenizer

from .card import read_header
from .code import auto_map, custom_pipelines

LIBRARIES = {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "regex"}
PICKLE = re.compile(r"\.(bin|pt|pth|pkl|pickle|ckpt)$")
TOKENIZER_FILE = re.compile(r"^(tokenizer\.json|.*\.spm|.*\.model|vocab\.(json|txt))$")

Read = Callable[[str], bytes]


def check_repo(folder_or_id: str | Path, *, revision: str | None = None, token: str | None = None) -> list[str]:
    """Find what would not work for other people; neither load weights nor run code.

    Args:
        folder_or_id: A model folder, or the name of a model on the Hub (of which the weights are not downloaded).
        revision: Branch, tag or commit on the Hub.
        token: A token of the Hub; by default that of `HF_TOKEN` or `hf auth login`.

    Returns:
        One sentence for each problem; an empty list when all is well.

    Raises:
        OSError: There is no such folder, or the Hub does not give such a model.
    """
    folder = Path(folder_or_id)
    if folder.is_dir():
        names = {path.name for path in folder.iterdir() if path.is_file()}
        return find_problems(names, lambda name: (folder / name).read_bytes())
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(folder_or_id)) or str(folder_or_id).startswith("."):
        raise FileNotFoundError(f"There is no model folder {folder_or_id}.")
    api, repo_id = HfApi(token=token), str(folder_or_id)
    with hub_errors(f"The Hub did not give {repo_id}"):
        info = api.model_info(repo_id, revision=revision)

        def read(name: str) -> bytes:
            return Path(api.hf_hub_download(repo_id, name, revision=info.sha)).read_bytes()

        return find_problems({file.rfilename for file in info.siblings or []}, read)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn failures of the connection and of uploads into ConnectionError; show progress bars on terminals only."""
    hide = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    except (OSError, ValueError):  # what the Hub answers, in words
        raise
    except Exception as error:  # what the HTTP library raises, whose name depends on the version of huggingface_hub
        raise ConnectionError(f"{what}: {error.__cause__ or error}") from error
    finally:
        if hide:
            enable_progress_bars()


def find_problems(names: Collection[str], read: Read) -> list[str]:
    """Return the problems of a repo, one sentence each.

    Args:
        names: The names of its files.
        read: Returns the content of a file; never called for weights.
    """
    problems = [
        f"{name} is a pickle, which can run any code when it is loaded. Save weights with save_pretrained "
        "(safetensors), and leave other pickles out."
        for name in sorted(names)
        if PICKLE.search(name)
    ]
    config, tokenizer_config = {}, {}
    try:
        config = read_json("config.json", names, read)
        tokenizer_config = read_json("tokenizer_config.json", names, read)
        problems += missing_files(names, read)
        if "README.md" in names:
            read_header(read("README.md").decode())
    except ValueError as error:
        problems.append(str(error))
    if config:
        problems += map_problems(config, tokenizer_config)
        problems += code_problems(config, tokenizer_config, names, read)
    if config and "tokenizer.json" in names:
        problems += vocabulary_problems(config, tokenizer_config, read)
    return problems


def read_json(name: str, names: Collection[str], read: Read) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no such file.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        value = json.loads(read(name)) if name in names else {}
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no JSON object.")
    return value


def missing_files(names: Collection[str], read: Read) -> Iterator[str]:
    """Name missing files: those that every repo of a model needs, and the shards that an index names."""
    if "config.json" not in names:
        yield "config.json is missing: nothing can be loaded."
    index = "model.safetensors.index.json"
    if index in names and "model.safetensors" not in names:
        shards = set(read_json(index, names, read).get("weight_map", {}).values())
        for shard in sorted(shards - set(names)):
            yield f"{shard} is missing, which {index} names."
    elif "model.safetensors" not in names:
        yield "model.safetensors is missing: there are no weights."
    if "tokenizer_config.json" not in names or not any(TOKENIZER_FILE.match(name) for name in names):
        yield "tokenizer.json or tokenizer_config.json is missing: save the tokenizer with save_pretrained."
    if "README.md" not in names:
        yield "README.md is missing: it says what the model is for."


def map_problems(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> Iterator[str]:
    """Name heads, tasks and a tokenizer of ours that the configs lack, for people who do not have the package."""
    try:
        wanted = auto_map(config, tokenizer_config)
    except ValueError:  # a model that this installation does not know: only what it says itself can be checked
        return
    advice = "`fun-transformer push` adds it."
    tokenizer = wanted.pop("AutoTokenizer", None)
    if missing := sorted(set(wanted) - set(config.get("auto_map") or {})):
        yield f"The auto_map of config.json lacks {', '.join(missing)}. {advice}"
    if missing := sorted(set(custom_pipelines(config)) - set(config.get("custom_pipelines") or {})):
        yield f"The custom_pipelines of config.json lack {', '.join(missing)}. {advice}"
    if tokenizer and not tokenizer_config.get("auto_map"):
        yield f"The auto_map of tokenizer_config.json lacks AutoTokenizer. {advice}"


def class_references(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> set[str]:
    """Return every `file.Class` that the configs name."""
    maps = [config.get("auto_map"), tokenizer_config.get("auto_map")]
    values = [value for entry in maps for value in (entry.values() if isinstance(entry, dict) else entry or [])]
    values += [info.get("impl") for info in (config.get("custom_pipelines") or {}).values()]
    flat = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return {item for item in flat if item}


def code_problems(
    config: dict[str, Any], tokenizer_config: dict[str, Any], names: Collection[str], read: Read
) -> Iterator[str]:
    """Name classes that are not in the repo, and imports that fail where the package is not installed."""
    defined: dict[str, set[str]] = {}  # file -> its classes
    references = sorted(class_references(config, tokenizer_config))
    for reference in references:
        if "--" in reference:
            yield f"{reference} is code in another repo, which may vanish or be private. Push the model again."
    own = [reference.split(".") for reference in references if "--" not in reference and "." in reference]
    waiting = [f"{module}.py" for module, _ in own]
    while waiting:
        name = waiting.pop()
        if name in defined:
            continue
        defined[name] = set()
        if name not in names:
            yield f"{name} is missing, which the model's code needs."
            continue
        try:
            tree = ast.parse(read(name))
        except (SyntaxError, ValueError) as error:
            yield f"{name} is no Python: {error}"
            continue
        defined[name] = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        siblings, problems = imports(name, tree)
        yield from problems
        waiting += [f"{sibling}.py" for sibling in siblings]
    for module, class_name in own:
        if f"{module}.py" in names and class_name not in defined[f"{module}.py"]:
            yield f"{module}.py has no class {class_name}, which a config names."


def imports(name: str, tree: ast.Module) -> tuple[set[str], list[str]]:
    """Return the siblings that a file imports, and a sentence for each import that does not travel."""
    siblings, problems = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = node.module or ""
            if node.level == 1 and module and "." not in module:
                siblings.add(module)
            else:
                problems.append(
                    f"{name} has `from {'.' * node.level}{module} import ...`, which transformers does not follow. "
                    "Import from a file beside it: `from .sibling import name`."
                )
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            libraries = {module.split(".")[0] for module in modules} - LIBRARIES - set(sys.stdlib_module_names)
            problems += [
                f"{name} imports {library}, which other people may not have." for library in sorted(libraries)
            ]
    return siblings, problems


def vocabulary_problems(config: dict[str, Any], tokenizer_config: dict[str, Any], read: Read) -> Iterator[str]:
    """Name token ids without a row in the embedding, and special tokens that model and tokenizer count differently."""
    try:
        vocabulary = Tokenizer.from_buffer(read("tokenizer.json")).get_vocab(with_added_tokens=True)
    except Exception as error:  # the Rust library raises plain Exception
        yield f"tokenizer.json cannot be read: {error}"
        return
    size, rows = max(vocabulary.values(), default=-1) + 1, config.get("vocab_size")
    if isinstance(rows, int) and size > rows:
        yield (
            f"The tokenizer has {size} tokens, but the model's embedding only vocab_size={rows} rows. "
            "Save the tokenizer that the model was trained with, or call model.resize_token_embeddings."
        )
    for kind in ("pad", "eos"):
        token, number = tokenizer_config.get(f"{kind}_token"), config.get(f"{kind}_token_id")
        token = token.get("content") if isinstance(token, dict) else token
        numbers = number if isinstance(number, list) else [number]
        if token in vocabulary and number is not None and vocabulary[token] not in numbers:
            yield (
                f"The tokenizer's {kind} token {token} is {vocabulary[token]}, but the model's {kind}_token_id is "
                f"{number}. Make them equal."
            )
