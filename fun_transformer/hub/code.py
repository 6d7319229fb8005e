"""The code that travels with a model, and the entries in its configs that name the classes in it.

All of it follows from what is registered with transformers' Auto classes: a head registered there is published.
"""

import sys
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto import modeling_auto
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from ..pipeline_fun_transformer import TASKS


def config_class_of(config: dict[str, Any]) -> type:
    """Return the config class of a `config.json`.

    Raises:
        ValueError: Its `model_type` is not registered.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"config.json has model_type={model_type!r}, which transformers does not know. "
            "Import the package that registers it."
        )
    return CONFIG_MAPPING[model_type]


def travelling_classes(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, type]:
    """Return Auto class -> class, for the config, every head and the tokenizer; those of transformers need not travel.

    Args:
        config: The content of `config.json`.
        tokenizer_config: The content of `tokenizer_config.json`.
    """
    config_class = config_class_of(config)
    classes: dict[str, type | None] = {"AutoConfig": config_class}
    for name, auto_class in vars(modeling_auto).items():
        mapping = getattr(auto_class, "_model_mapping", None)
        if name.startswith("Auto") and mapping is not None and config_class in mapping:
            classes[name] = mapping[config_class]
    classes["AutoTokenizer"] = tokenizer_class_from_name(tokenizer_config.get("tokenizer_class", ""))
    return {name: cls for name, cls in classes.items() if isinstance(cls, type) and not is_in_transformers(cls)}


def is_in_transformers(cls: type) -> bool:
    """Whether a class is part of transformers."""
    return cls.__module__.split(".")[0] == "transformers"


def reference(cls: type) -> str:
    """Return how a config names a class: `file.Class`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def auto_map(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, str | list[str | None]]:
    """Return the `auto_map` that names every class that travels; a tokenizer's entry is (slow, fast)."""
    names = {name: reference(cls) for name, cls in travelling_classes(config, tokenizer_config).items()}
    return {name: [None, value] if name == "AutoTokenizer" else value for name, value in names.items()}


def custom_pipelines(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the `custom_pipelines` of a model that generates text from text; empty for one that does not."""
    mapping = modeling_auto.AutoModelForSeq2SeqLM._model_mapping
    config_class = config_class_of(config)
    saved = config.get("architectures") or []
    if config_class not in mapping or getattr(mapping[config_class], "__name__", None) not in saved:
        return {}
    return {
        task: {"impl": reference(pipeline_class), "pt": ["AutoModelForSeq2SeqLM"], "type": "text"}
        for task, (pipeline_class, _) in TASKS.items()
    }


def travelling_files(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, Path]:
    """Return the files that hold the classes of a model, and all siblings that those import: name -> path."""
    classes = list(travelling_classes(config, tokenizer_config).values())
    if custom_pipelines(config):
        classes += [pipeline_class for pipeline_class, _ in TASKS.values()]
    paths = {Path(str(sys.modules[cls.__module__].__file__)) for cls in classes}
    paths |= {Path(sibling) for path in paths for sibling in get_relative_import_files(path)}
    return {path.name: path for path in sorted(paths)}
