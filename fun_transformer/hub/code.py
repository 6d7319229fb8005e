"""The code that travels with a model, and the entries in its configs that name the classes in it.

All of it follows from what is registered with transformers' Auto classes: a head registered there is published.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto import modeling_auto
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from ..frontends import FRONT_ENDS
from ..pipeline_fun_transformer import TASKS
from ..pipeline_image_to_text import IMAGE_TASKS


def malformed_fields(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> Iterator[str]:
    """Name fields of the configs that are not of the form in which transformers, and what follows here, reads them."""
    checks = [
        ("config.json", config, "model_type", is_name, "a name"),
        ("config.json", config, "source_modality", is_name, "a name"),
        ("config.json", config, "architectures", is_list_of_names, "a list of names"),
        ("config.json", config, "auto_map", is_auto_map, "a map to file.Class"),
        ("config.json", config, "custom_pipelines", is_pipeline_map, "a map from tasks to {impl: file.Class, ...}"),
        ("tokenizer_config.json", tokenizer_config, "tokenizer_class", is_name, "a name"),
        ("tokenizer_config.json", tokenizer_config, "auto_map", is_auto_map, "a map to file.Class"),
    ]
    for name, fields, field, is_right, form in checks:
        value = fields.get(field)
        if value is not None and not is_right(value):
            yield f"{name} has {field}={str(value)[:50]!r}, which must be {form}. Save the model again."


def is_name(value: Any) -> bool:
    """Whether something is a text."""
    return isinstance(value, str)


def is_list_of_names(value: Any) -> bool:
    """Whether something is a list of texts."""
    return isinstance(value, list) and all(map(is_name, value))


def is_auto_map(value: Any) -> bool:
    """Whether something has the form of an `auto_map`; old tokenizers have a list instead."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [0]
    names = [name for entry in entries for name in (entry if isinstance(entry, list) else [entry])]
    return all(name is None or isinstance(name, str) for name in names)


def is_pipeline_map(value: Any) -> bool:
    """Whether something has the form of `custom_pipelines`."""
    entries = value.values() if isinstance(value, dict) else [0]
    return all(isinstance(entry, dict) and isinstance(entry.get("impl"), str) for entry in entries)


def class_references(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> set[str]:
    """Return every `file.Class` that the configs name."""
    maps = [config.get("auto_map"), tokenizer_config.get("auto_map")]
    values = [value for entry in maps for value in (entry.values() if isinstance(entry, dict) else entry or [])]
    values += [info.get("impl") for info in (config.get("custom_pipelines") or {}).values()]
    flat = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return {item for item in flat if item}


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


def has_code_of_others(config: dict[str, Any]) -> bool:
    """Whether a config names code for a family that is not registered here: it stays as it is in its repo."""
    return "AutoConfig" in (config.get("auto_map") or {}) and config.get("model_type") not in CONFIG_MAPPING


def registered_classes(config: dict[str, Any]) -> dict[str, Any]:
    """Return Auto class -> class, for the config and every head of a family, wherever their code is.

    One class of ours is in three Auto classes: of those, a model has the one that fits its source.
    """
    config_class = config_class_of(config)
    classes: dict[str, Any] = {"AutoConfig": config_class}
    is_ours = config.get("model_type") == "fun_transformer"
    front_end = FRONT_ENDS.get(config.get("source_modality", "text"))
    others = {one.auto_class for one in FRONT_ENDS.values()}
    for name, auto_class in vars(modeling_auto).items():
        mapping = getattr(auto_class, "_model_mapping", None)
        if is_ours and (name in others if front_end is None else name not in ("AutoModel", front_end.auto_class)):
            continue
        if name.startswith("Auto") and mapping is not None and config_class in mapping:
            classes[name] = mapping[config_class]
    return classes


def travelling_classes(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, type]:
    """Return Auto class -> class, for the config, every head and the tokenizer; those of transformers need not travel.

    Args:
        config: The content of `config.json`.
        tokenizer_config: The content of `tokenizer_config.json`.
    """
    classes = {} if has_code_of_others(config) else registered_classes(config)
    classes["AutoTokenizer"] = tokenizer_class_from_name(tokenizer_config.get("tokenizer_class", ""))
    return {name: cls for name, cls in classes.items() if isinstance(cls, type) and not is_in_transformers(cls)}


def saved_class(config: dict[str, Any]) -> type[PreTrainedModel] | None:
    """Return the class of the model that was saved; None where this installation does not know it."""
    name = (config.get("architectures") or [""])[0]
    try:
        classes = [getattr(transformers, name, None), *travelling_classes(config, {}).values()]
    except ValueError:
        return None
    found = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, PreTrainedModel)]
    return next((cls for cls in found if cls.__name__ == name), None)


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


def custom_pipelines(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the `custom_pipelines` of a model with code of ours that writes texts; speech needs none of ours.

    A model that needs transformers alone gets none: its users would have to trust code for nothing.
    """
    if has_code_of_others(config) or not travelling_classes(config, tokenizer_config):
        return {}
    saved, classes = config.get("architectures") or [], registered_classes(config)
    return {
        task: {"impl": reference(pipeline), "pt": [pipeline.auto_class], "type": pipeline.kind}
        for task, (pipeline, _) in (TASKS | IMAGE_TASKS).items()
        if getattr(classes.get(pipeline.auto_class), "__name__", None) in saved
    }


def travelling_files(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> dict[str, Path]:
    """Return the files that hold the classes of a model, and all siblings that those import: name -> path."""
    classes = list(travelling_classes(config, tokenizer_config).values())
    named = class_references(config, {})
    named |= {info["impl"] for info in custom_pipelines(config, tokenizer_config).values()}
    classes += [pipeline for pipeline, _ in (TASKS | IMAGE_TASKS).values() if reference(pipeline) in named]
    paths = {Path(str(sys.modules[cls.__module__].__file__)) for cls in classes}
    paths |= {Path(sibling) for path in paths for sibling in get_relative_import_files(path)}
    return {path.name: path for path in sorted(paths)}
