"""Find what would not work for other people who load a model from a repo."""

import ast
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tokenizers import Tokenizer

from ..frontends import FRONT_ENDS
from ..mixers import MIXERS
from ..positions import POSITIONS
from .card import decode_card, read_header
from .code import auto_map, class_references, custom_pipelines, malformed_fields
from .contents import (
    ADAPTER_CONFIG,
    CONTENTS,
    RepoFiles,
    folder_contents,
    is_adapter,
    local_files,
    name_problems,
    read_json,
    secret_problems,
)
from .weights import weight_problems

LIBRARIES = {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "regex", "PIL"}
TOKENIZER_FILE = re.compile(r"^(tokenizer\.json|.*\.spm|.*\.model|vocab\.(json|txt))$")
HEADER_BLOCK = 1 << 16  # bytes of a file with weights that are fetched together


def check_repo(folder_or_id: str | Path, *, revision: str | None = None, token: str | None = None) -> list[str]:
    """Find what would not work for other people, or should not be seen by them; run no code.

    Args:
        folder_or_id: A model folder, of which the files that would be published are checked, or the name of a model on
            the Hub, of whose weights only names and shapes are fetched.
        revision: Branch, tag or commit on the Hub.
        token: A token of the Hub; by default that of `HF_TOKEN` or `hf auth login`.

    Returns:
        One sentence for each problem; an empty list when all is well.

    Raises:
        OSError: There is no such folder, or the Hub does not give such a model.
    """
    folder = Path(folder_or_id)
    if folder.is_dir():
        contents = folder_contents(folder)
        return contents.problems + find_problems(local_files(folder, contents.published))
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(folder_or_id)) or str(folder_or_id).startswith("."):
        raise FileNotFoundError(f"There is no model folder {folder_or_id}.")
    api, repo_id = HfApi(token=token), str(folder_or_id)
    with hub_errors(f"The Hub did not give {repo_id}"):
        info = api.model_info(repo_id, revision=revision)
        file_system = HfFileSystem(token=token)

        def open_file(name: str) -> BinaryIO:
            if name.endswith(".safetensors"):  # read in place
                return file_system.open(f"{repo_id}/{name}", "rb", revision=info.sha, block_size=HEADER_BLOCK)
            return open(api.hf_hub_download(repo_id, name, revision=info.sha), "rb")

        names = {file.rfilename for file in info.siblings or []}
        files = RepoFiles(names, open_file, is_local=False)
        return [*name_problems(names), *secret_problems(files), *find_problems(files)]


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


def find_problems(files: RepoFiles) -> list[str]:
    """Return the problems of a repo, one sentence each, besides secrets and unsafe names."""
    problems = list(missing_files(files.names))
    contents: dict[str, dict[str, Any]] = {}
    for name in sorted(files.names):
        try:
            is_config = CONTENTS.fullmatch(name) or name == ADAPTER_CONFIG
            if is_config and name.endswith(".json") and name != "tokenizer.json":
                contents[name] = read_json(name, files)
            elif name == "README.md":
                problems += card_problems(read_header(decode_card(files.read(name))))
        except ValueError as error:
            problems.append(str(error))
    config, tokenizer_config = (contents.get(name, {}) for name in ("config.json", "tokenizer_config.json"))
    try:
        if malformed := list(malformed_fields(config, tokenizer_config)):
            return problems + malformed
        problems += weight_problems(files, config)
    except ValueError as error:
        problems.append(str(error))
    if is_adapter(files.names) and ADAPTER_CONFIG in contents:
        problems += adapter_problems(contents[ADAPTER_CONFIG])
    if config:
        problems += plug_in_problems(config)
        problems += front_end_problems(config, files.names)
        problems += map_problems(config, tokenizer_config)
        problems += code_problems(config, tokenizer_config, files)
    if config and "tokenizer.json" in files.names:
        problems += vocabulary_problems(config, tokenizer_config, files)
    return list(dict.fromkeys(problems))


def plug_in_problems(config: dict[str, Any]) -> Iterator[str]:
    """Name parts of a model that are in the user's own files, not in the code that is published."""
    layer_types = [*(config.get("encoder_layer_types") or ()), *(config.get("decoder_layer_types") or ())]
    positions = config.get("position_embedding_type", "sinusoidal")
    sources = [config["source_modality"]] if config.get("source_modality", "text") != "text" else []
    for table, named in ((POSITIONS, [positions]), (MIXERS, layer_types), (FRONT_ENDS, sources)):
        for name in dict.fromkeys(named) if config.get("model_type") == "fun_transformer" else ():
            if name not in table or not table[name].__module__.startswith("fun_transformer."):
                yield f"config.json names {name}, which a plug-in adds: other people do not have that file."


def front_end_problems(config: dict[str, Any], names: Collection[str]) -> Iterator[str]:
    """Name what is missing to turn recordings or pictures into what a model reads."""
    source = config.get("source_modality", "text")
    if source != "text" and not {"preprocessor_config.json", "processor_config.json"} & set(names):
        kind = "image processor" if source == "image" else "feature extractor"
        yield f"preprocessor_config.json is missing: save the {kind} of the training with save_pretrained."


def missing_files(names: Collection[str]) -> Iterator[str]:
    """Name missing files that every repo of a model needs; those with weights are checked with what is in them."""
    if "config.json" not in names and not is_adapter(names):
        yield "config.json is missing: nothing can be loaded."
    if "tokenizer_config.json" not in names or not any(TOKENIZER_FILE.match(name) for name in names):
        yield "tokenizer.json or tokenizer_config.json is missing: save the tokenizer with save_pretrained."
    if "README.md" not in names:
        yield "README.md is missing: it says what the model is for."


def is_place(name: str) -> bool:
    """Whether a name of a model is a path and not a name on the Hub."""
    return not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name)


def card_problems(header: dict[str, Any]) -> Iterator[str]:
    """Name a model in the header of a card that is a folder of somebody's machine."""
    models = header.get("base_model")
    for name in models if isinstance(models, list) else [models]:
        if isinstance(name, str) and is_place(name):
            yield f"README.md names {name} as base_model, no model on the Hub. Name one, or leave it out."


def adapter_problems(adapter_config: dict[str, Any]) -> Iterator[str]:
    """Name what hinders other people from finding the model that an adapter is for."""
    base = adapter_config.get("base_model_name_or_path")
    if not isinstance(adapter_config.get("peft_type"), str):
        yield f"{ADAPTER_CONFIG} names no peft_type: save the adapter again."
    if not isinstance(base, str) or not base:
        yield f"{ADAPTER_CONFIG} does not name the model that it is for: give its name as base_model_name_or_path."
    elif is_place(base):
        yield (
            f"{ADAPTER_CONFIG} is for the model in {base}, which other people do not have. Write the name that the "
            "model has on the Hub into its base_model_name_or_path, or train with training.lora.merge: true."
        )


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
    if missing := sorted(set(custom_pipelines(config, tokenizer_config)) - set(config.get("custom_pipelines") or {})):
        yield f"The custom_pipelines of config.json lack {', '.join(missing)}. {advice}"
    if tokenizer and not tokenizer_config.get("auto_map"):
        yield f"The auto_map of tokenizer_config.json lacks AutoTokenizer. {advice}"


def code_problems(config: dict[str, Any], tokenizer_config: dict[str, Any], files: RepoFiles) -> Iterator[str]:
    """Name classes that are not in the repo, and imports that fail where the package is not installed."""
    defined: dict[str, set[str]] = {}  # file -> its classes
    references = sorted(class_references(config, tokenizer_config))
    for reference in references:
        if "--" in reference:
            yield f"{reference} is code in another repo, which may vanish or be private. Push the model again."
    own = [reference.rsplit(".", 1) for reference in references if "--" not in reference and "." in reference]
    waiting = [f"{module}.py" for module, _ in own]
    while waiting:
        name = waiting.pop()
        if name in defined:
            continue
        defined[name] = set()
        if name not in files.names:
            yield f"{name} is missing, which the model's code needs."
            continue
        try:
            tree = ast.parse(files.read(name))
        except (SyntaxError, ValueError, RecursionError) as error:
            yield f"{name} is no Python: {error}"
            continue
        defined[name] = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        siblings, problems = imports(name, tree)
        yield from problems
        waiting += [f"{sibling}.py" for sibling in siblings]
    for module, class_name in own:
        if f"{module}.py" in files.names and class_name not in defined[f"{module}.py"]:
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


def vocabulary_problems(config: dict[str, Any], tokenizer_config: dict[str, Any], files: RepoFiles) -> Iterator[str]:
    """Name token ids without a row in the embedding, and special tokens that model and tokenizer count differently."""
    try:
        vocabulary = Tokenizer.from_buffer(files.read("tokenizer.json")).get_vocab(with_added_tokens=True)
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
        if isinstance(token, str) and token in vocabulary and number is not None and vocabulary[token] not in numbers:
            yield (
                f"The tokenizer's {kind} token {token} is {vocabulary[token]}, but the model's {kind}_token_id is "
                f"{number}. Make them equal."
            )
