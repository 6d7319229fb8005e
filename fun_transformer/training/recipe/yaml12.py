"""YAML 1.2 as recipes use it: `no` is a word, `1e-3` a number, and a key that comes twice is refused."""

import re
from typing import Any

import yaml


class RecipeLoader(yaml.SafeLoader):
    """YAML 1.2's core schema; a key that comes twice is refused."""

    yaml_implicit_resolvers = {
        letter: [rule for rule in rules if rule[0].rpartition(":")[2] in ("null", "merge")]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        """Return a section as a dict."""
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


class RecipeDumper(yaml.SafeDumper):
    """A writer that puts quotes around text that YAML 1.1 or 1.2 would read as something else."""


_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"


for _yaml_class in (RecipeLoader, RecipeDumper):
    for _tag, _pattern, _first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
        ("float", _NUMBER, "-+.0123456789"),
    ):
        _rule = re.compile(f"^(?:{_pattern})$")
        _yaml_class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _rule, list(_first))


def read_yaml(text: str, name: str) -> Any:
    """Return parsed YAML; `name` says in the error where the text came from.

    Raises:
        ValueError: The text is not YAML.
    """
    try:
        return yaml.load(text, RecipeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {error}") from error
