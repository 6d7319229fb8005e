"""The recipes that ship with the package: one folder of `hub_configs` for each published model."""

import difflib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(path.parent.name for path in hub_configs().glob("*/recipe.yaml"))


def shipped_recipe(name: str) -> Path:
    """Return the file of a shipped recipe.

    Args:
        name: Its folder in `hub_configs`, such as "g2p-en".

    Returns:
        The path of its recipe.yaml.

    Raises:
        ValueError: There is no such recipe; near misses get the right name.
    """
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(names)}, or give a file."
        raise ValueError(f"There is no shipped recipe {name!r}. {hint}")
    return hub_configs() / name / "recipe.yaml"


def hub_configs() -> Path:
    """Return the folder of the recipes: inside the package where it was installed, else beside it in a checkout."""
    inside = PACKAGE / "hub_configs"
    return inside if inside.is_dir() else PACKAGE.parent / "hub_configs"
