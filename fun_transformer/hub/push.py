"""Publish a finished model folder with all that other people need to use it, in one commit."""

import io
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from transformers.utils import logging

from .card import complete_card, decode_card, read_header
from .check import find_problems, hub_errors
from .code import (
    auto_map,
    custom_pipelines,
    has_code_of_others,
    malformed_fields,
    registered_classes,
    travelling_classes,
    travelling_files,
)
from .contents import ADAPTER_CONFIG, FolderContents, RepoFiles, folder_contents, is_adapter, read_json
from .usage import HEAD_TASKS, Loading

logger = logging.get_logger(__name__)

# Would be loaded instead, where a new version of a repo does not have them any more.
STALE = re.compile(r"(adapter_)?(model.*\.safetensors|config\.json)|model\.safetensors\.index\.json|pytorch_model.*")


def push_model_repo(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Publish the model",
    metadata: dict[str, Any] | None = None,
) -> CommitInfo:
    """Publish a model folder so that it works with this package (`import fun_transformer`) and without it (trust).

    Weights, tokenizer, generation config and card are published as they are. Added are the code that the model's
    classes are in, the `auto_map` of all its heads, its `custom_pipelines`, and what the card lacks. The folder itself
    is never changed. All goes into one commit: after a failure the repo is as it was (a new one is empty). Weights in
    the repo that the folder does not have (other shards, say) are deleted in it, because they might be loaded instead.

    Args:
        folder: What `save_pretrained` of model and tokenizer wrote, or `runs/NAME/model` of a training. Published are
            weights, configs, the tokenizer, the card with its pictures, licenses, and code that the configs name;
            what else is in the folder is left out with a warning.
        repo_id: The name on the Hub, "me/my-model"; created where it does not exist.
        private: Whether a new repo is private; by default what the owner has set. An existing repo stays what it is.
        token: A token of the Hub that may write; by default that of `HF_TOKEN` or `hf auth login`.
        commit_message: The first line of the commit's message.
        metadata: Fields for the header of the card, such as {"license": "apache-2.0", "language": ["zh", "en"]}.

    Returns:
        The commit, with `repo_url`, `commit_url` and `oid`.

    Raises:
        ValueError: The folder has problems (`check_repo` would tell the same), such as damaged weights, links or
            secrets; or `repo_id` has no owner.
        OSError: The Hub refused or could not be reached.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"repo_id={repo_id!r} is no name on the Hub. Give owner and name, such as me/my-model.")
    contents = model_contents(Path(folder))
    files = prepare_files(contents, repo_id, metadata or {})
    if problems := contents.problems + find_problems(as_repo(files)):
        raise ValueError(f"{folder} is not published. " + " ".join(problems))
    if contents.left_out:
        logger.warning(f"Not published, because no model repo needs it: {', '.join(contents.left_out)}.")
    header = read_header(decode_card(read_bytes(files["README.md"])))
    if absent := [field for field in ("license", "language") if field not in header]:
        logger.warning(f"The card names no {' and no '.join(absent)}: pass metadata={{'{absent[0]}': ...}}.")
    api = HfApi(token=token)
    with hub_errors(f"{repo_id} is as it was, because the upload failed"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        before = api.model_info(repo_id)
        published = {file.rfilename for file in before.siblings or []}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=str(content) if isinstance(content, Path) else content
            )
            for name, content in files.items()
        ]
        operations += [CommitOperationDelete(name) for name in sorted(published - set(files)) if STALE.fullmatch(name)]
        return api.create_commit(repo_id, operations, commit_message=commit_message, parent_commit=before.sha)


def model_contents(folder: Path) -> FolderContents:
    """Tell which files of a model folder are published.

    Raises:
        OSError: There is no such folder, or no model in it.
    """
    if not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        raise FileNotFoundError(f"{folder} holds no config.json: it is not a model folder.")
    return folder_contents(folder)


def prepare_files(contents: FolderContents, repo_id: str, metadata: dict[str, Any]) -> dict[str, Path | bytes]:
    """Return what is published: name -> the path of a file that stays as it is, or the new content of a file.

    Raises:
        ValueError: The config is broken or of an unknown model, or the card cannot be read.
    """
    files: dict[str, Path | bytes] = dict(contents.published)
    adapter = read_json(ADAPTER_CONFIG, as_repo(files)) if is_adapter(files) else None
    config, tokenizer_config = (read_json(name, as_repo(files)) for name in ("config.json", "tokenizer_config.json"))
    if problems := list(malformed_fields(config, tokenizer_config)):
        raise ValueError(" ".join(problems))
    if adapter is None:
        add_code(files, config, tokenizer_config)
        loading = loading_of(config, tokenizer_config)
    else:
        loading = loading_of_adapter(adapter)
    card = decode_card(read_bytes(files["README.md"])) if "README.md" in files else ""
    files["README.md"] = complete_card(card, repo_id, loading, metadata).encode()
    return files


def add_code(files: dict[str, Path | bytes], config: dict[str, Any], tokenizer_config: dict[str, Any]) -> None:
    """Add the code that is in no library to the files of a model, and name its classes in the configs."""
    files |= travelling_files(config, tokenizer_config)
    changed = {}
    if names := auto_map(config, tokenizer_config):
        changed["auto_map"] = config["auto_map"] | names if has_code_of_others(config) else names
    if "AutoTokenizer" in names:
        files["tokenizer_config.json"] = to_json(
            tokenizer_config | {"auto_map": {"AutoTokenizer": names["AutoTokenizer"]}}
        )
    if tasks := custom_pipelines(config, tokenizer_config):
        changed["custom_pipelines"] = tasks
    if changed:
        files["config.json"] = to_json(config | changed)


def loading_of(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> Loading:
    """Return what a model needs to be loaded: the Auto class of the architecture that was saved, and code."""
    saved = (config.get("architectures") or [""])[0]
    is_theirs = has_code_of_others(config)
    if is_theirs:
        found = [name for name, value in config["auto_map"].items() if str(value).rpartition(".")[2] == saved]
    else:
        classes = registered_classes(config)
        found = [name for name, cls in classes.items() if getattr(cls, "__name__", None) == saved]
    found = [name for name in HEAD_TASKS if name in found] or found or ["AutoModel"]
    needs_package = bool(travelling_classes(config, tokenizer_config))
    return Loading(found[0], needs_package=needs_package, needs_trust=is_theirs)


def loading_of_adapter(adapter: dict[str, Any]) -> Loading:
    """Return what an adapter needs to be loaded; what its config lacks, `check_repo` tells."""
    heads = {
        "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
        "CAUSAL_LM": "AutoModelForCausalLM",
        "SEQ_CLS": "AutoModelForSequenceClassification",
        "TOKEN_CLS": "AutoModelForTokenClassification",
    }
    head = heads.get(str(adapter.get("task_type")), "AutoModel")
    return Loading(head, needs_package=False, base=str(adapter.get("base_model_name_or_path")))


def as_repo(files: dict[str, Path | bytes]) -> RepoFiles:
    """Return the files that `prepare_files` returned as those of a repo."""

    def open_file(name: str) -> BinaryIO:
        content = files[name]
        return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)

    return RepoFiles(files, open_file)


def read_bytes(content: Path | bytes) -> bytes:
    """Return the content of a file that `prepare_files` returned."""
    return content.read_bytes() if isinstance(content, Path) else content


def to_json(value: dict[str, Any]) -> bytes:
    """Return JSON as transformers writes it."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
