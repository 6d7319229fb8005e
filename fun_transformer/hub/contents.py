"""What a model repo holds: the files of a folder that are published, and secrets that never are."""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from transformers.dynamic_module_utils import get_relative_imports
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from .code import class_references, malformed_fields

WEIGHTS = "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
# Besides these: the shards that an index names, the code that a config names, and the pictures of the card.
CONTENTS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|(pre)?processor_config)\.json"
    r"|((source_|target_)?vocab\.(json|txt))|merges\.txt|chat_template\.(jinja|json)"
    r"|(source|target)\.spm|(spiece|tokenizer|spm_char|sentencepiece(\.bpe)?)\.model"
    r"|README\.md|(LICEN[SC]E|NOTICE|COPYING)(\.(md|txt))?|model\.safetensors(\.index\.json)?"
)
PICTURE = re.compile(r"\.(png|jpe?g|gif|svg|webp)$", re.IGNORECASE)
TEXT = re.compile(r"\.(md|json|txt|py|jinja)$|^(LICEN[SC]E|NOTICE|COPYING)$")
PICKLE = re.compile(r"\.(bin|pt|pth|pkl|pickle|ckpt)$")
# What the Trainer leaves in a model folder and the model does not need.
LEFTOVERS = re.compile(r"(training_args\.bin|optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*|trainer_state\.json)")

SECRET_NAME = re.compile(
    r"(.*[._-])?(token|secrets?|credentials?|passwords?|passwd|api[_-]?keys?)(\.(txt|json|ya?ml|ini|cfg|toml|env))?"
    r"|\.?(netrc|npmrc|pypirc|git-credentials)|(.*\.)?env|id_(rsa|dsa|ecdsa|ed25519)"
    r"|.*\.(pem|key|p12|pfx|ppk|kdbx|jks|keystore)",
    re.IGNORECASE,
)
SECRETS = {
    "a token of Hugging Face": rb"\bhf_[A-Za-z0-9]{30,}",
    "a token of GitHub or GitLab": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}",
    "an API key": rb"\bsk-[\w-]*[A-Za-z0-9]{32,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\bxox[abprs]-[\w-]{10,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----",
    "a password in an address": rb"\bhttps?://[^\s/:@]+:[^\s/:@]+@",
}


@dataclass(frozen=True)
class RepoFiles:
    """The files of a model repo, in a folder or on the Hub.

    Attributes:
        names: Their names.
        open: Opens one for reading; it can be read from any place.
        is_local: Whether reading all of the weights is quick.
    """

    names: Collection[str]
    open: Callable[[str], BinaryIO]
    is_local: bool = True

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.open(name) as file:
            return file.read()


@dataclass(frozen=True)
class FolderContents:
    """What of a folder is published.

    Attributes:
        published: Name -> path.
        left_out: The names of all else that can be seen; a folder's ends with a slash.
        problems: Why the folder should not be published, one sentence each.
    """

    published: dict[str, Path]
    left_out: list[str]
    problems: list[str]


def folder_contents(folder: Path) -> FolderContents:
    """Tell which files of a folder are published, which are not, and which should not be in it."""
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = {path.name: path for path in visible if path.is_file()}
    wanted = wanted_names(local_files(folder, set(files)))
    published = {name: path for name, path in files.items() if name in wanted}
    kept = [name for name in files if not LEFTOVERS.fullmatch(name)]
    problems = [*name_problems(kept), *secret_problems(local_files(folder, published))]
    if links := [name for name, path in files.items() if path.is_symlink()]:
        problems.append(
            f"{', '.join(links)}: links, of which it is not seen what they would publish. "
            "Remove them, or copy the folder with `cp -rL`."
        )
    left_out = [path.name + "/" * path.is_dir() for path in visible if path.name not in published]
    return FolderContents(published, left_out, problems)


def local_files(folder: Path, names: Collection[str]) -> RepoFiles:
    """Return the files of a folder."""
    return RepoFiles(names, lambda name: (folder / name).open("rb"))


def wanted_names(files: RepoFiles) -> set[str]:
    """Return the names in a folder that belong to its model: by what they are called, or because others name them."""
    wanted = {name for name in files.names if CONTENTS.fullmatch(name)}
    if is_adapter(files.names):
        wanted.add(ADAPTER_CONFIG)
    try:
        wanted |= set(weight_files(files))
        configs = read_json("config.json", files), read_json("tokenizer_config.json", files)
        if not any(malformed_fields(*configs)):
            wanted |= code_names(class_references(*configs), files)
            tokenizer = tokenizer_class_from_name(configs[1].get("tokenizer_class", ""))
            wanted |= set(getattr(tokenizer, "vocab_files_names", {}).values())
    except ValueError:
        pass  # `find_problems` tells it
    if WEIGHTS in files.names:
        wanted.discard(INDEX)  # transformers would not read it
    card = files.read("README.md").decode(errors="replace") if "README.md" in files.names else ""
    return wanted | {name for name in files.names if PICTURE.search(name) and name in card}


def code_names(references: Collection[str], files: RepoFiles) -> set[str]:
    """Return the files of a folder that hold classes which its configs name, and what those import beside them."""
    waiting, found = [f"{reference.rpartition('.')[0]}.py" for reference in references], set()
    while waiting:
        name = waiting.pop()
        if name in files.names and name not in found:
            found.add(name)
            with files.open(name) as file:
                waiting += [f"{sibling}.py" for sibling in get_relative_imports(file.name)]
    return found


def is_adapter(names: Collection[str]) -> bool:
    """Whether these are the files of an adapter alone, whose model is in another place."""
    return ADAPTER_CONFIG in names and "config.json" not in names


def weight_files(files: RepoFiles) -> list[str]:
    """Return the names of the files that transformers loads the weights from; they need not be there.

    Raises:
        ValueError: The index of the shards is broken.
    """
    if is_adapter(files.names):
        return [ADAPTER_WEIGHTS]
    if WEIGHTS in files.names or INDEX not in files.names:
        return [WEIGHTS]
    return sorted(set(weight_map(files).values()))


def weight_map(files: RepoFiles) -> dict[str, str]:
    """Return tensor -> shard, of the index.

    Raises:
        ValueError: It is none.
    """
    shards = read_json(INDEX, files).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(is_file_name(name) for name in shards.values()):
        raise ValueError(f"{INDEX} has no weight_map from the names of tensors to those of files beside it.")
    return shards


def is_file_name(name: Any) -> bool:
    """Whether something is the name of a file without a folder."""
    return isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name) is not None


def read_json(name: str, files: RepoFiles) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no such file.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        value = json.loads(files.read(name).decode()) if name in files.names else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no JSON object.")
    return value


def name_problems(names: Collection[str]) -> Iterator[str]:
    """Name files whose names say that they are secrets, or can run any code."""
    for name in sorted(names):
        last = name.rpartition("/")[2]
        if PICKLE.search(last):
            yield (
                f"{name} is a pickle, which can run any code when it is loaded. Save weights with save_pretrained "
                "(safetensors), and leave other pickles out."
            )
        if SECRET_NAME.fullmatch(last) and not CONTENTS.fullmatch(last):
            yield f"{name} has the name of a secret. Move it elsewhere; if it was published, revoke the secret."


def secret_problems(files: RepoFiles) -> Iterator[str]:
    """Name lines of a repo's texts that look like secrets, without repeating them."""
    for name in sorted(files.names):
        if TEXT.search(name) and (CONTENTS.fullmatch(name) or name.endswith(".py")):
            text = files.read(name).replace(b"\0", b"")  # what UTF-16 puts between letters
            for kind, pattern in SECRETS.items():
                if match := re.search(pattern, text):
                    line = text.count(b"\n", 0, match.start()) + 1
                    yield f"{name}, line {line}, has what looks like {kind}. Take it out, and revoke it."
