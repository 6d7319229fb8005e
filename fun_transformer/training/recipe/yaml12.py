"""YAML 1.2 as recipes use it: `no` is a word, `1e-3` a number, and a key that comes twice is refused."""

import re
from typing import Any

import yaml

LONGEST, DEEPEST, MOST_VALUES = 1_000_000, 50, 1_000_000  # characters, levels, values: no recipe comes near
LONGEST_REASON = 500


class RecipeLoader(yaml.SafeLoader):
    """YAML 1.2's core schema; a key that comes twice is refused."""

    yaml_implicit_resolvers = {
        letter: [rule for rule in rules if rule[0].rpartition(":")[2] in ("null", "merge")]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        """Return a section as a dict."""
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by what comes next
            if key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            keys.add(key.value)
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
        ValueError: The text is not YAML, or has more depth or size than any recipe needs.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{name} is not a recipe: {len(text):,} characters are longer than any recipe.")
    try:
        loader = RecipeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        count_nodes(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError(f"{name} is not a recipe: it is nested deeper than any recipe needs.") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        reason = str(error)
        raise ValueError(
            f"{name} is not valid YAML: {reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + '...'}"
        ) from error


def count_nodes(node: yaml.Node, known: dict[int, int], depth: int = 1) -> int:
    """Count the values of a document, those of an alias (*name) wherever it is used.

    Args:
        node: The document, or a part of it.
        known: The counts of parts; those that have been entered and not been left have 0.
        depth: Of the part.

    Raises:
        ValueError: There are too many, they are nested too deeply, or a part holds itself.
    """
    if known.get(id(node)) == 0:
        raise ValueError(f"the alias in line {node.start_mark.line + 1} holds itself")
    if depth > DEEPEST:
        raise ValueError(f"line {node.start_mark.line + 1} is nested deeper than {DEEPEST} levels")
    if id(node) not in known:
        known[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(count_nodes(part, known, depth + 1) for part in parts)
    if known[id(node)] > MOST_VALUES:
        raise ValueError(f"there are more than {MOST_VALUES:,} values in it")
    return known[id(node)]
