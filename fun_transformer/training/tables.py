"""Tables of what a recipe can name: metrics and objectives, ours and those of other people's files.

    @register_metric
    class LengthRatio(ReferenceMetric):
        name = "length_ratio"
        ...

A table maps the `name` of a class to the class. docs/plugins.md shows whole files.
"""

import difflib
from typing import Any, TypeVar

Registered = TypeVar("Registered", bound=type)


class Table(dict[str, Any]):
    """Classes by name; asking for an unknown name raises an error that lists the known ones.

    Args:
        noun: What the classes are, for the errors.
        attributes: What each class must say of itself, beside its name.
    """

    def __init__(self, noun: str, *attributes: str):
        super().__init__()
        self.noun, self.attributes = noun, attributes

    def __missing__(self, name: str) -> Any:
        raise ValueError(unknown_name(self.noun, name, self))

    def register(self, registered: Registered) -> Registered:
        """Add a class under its `name`; use it as a decorator.

        The same class may come again, as a notebook's cell may be run twice. A built-in name cannot be taken.

        Raises:
            ValueError: The class has no name, or another class has the same one.
        """
        name: Any = getattr(registered, "name", None)
        missing = [attribute for attribute in self.attributes if not hasattr(registered, attribute)]
        missing = missing if isinstance(name, str) else ["name"]
        if missing:
            raise ValueError(
                f"{registered.__name__} has no {missing[0]}. The class of a {self.noun} says it: `{missing[0]} = ...`."
            )
        known = self.get(name)
        if known is not None and not is_same_class(known, registered):
            place = f"{known.__module__}.{known.__qualname__}"
            raise ValueError(f"There is a {self.noun} {name!r} already, {place}. Choose another name.")
        self[name] = registered
        return registered


def is_same_class(old: type, new: type) -> bool:
    """Return whether a class is another version of one that was registered before."""
    built_in = old.__module__.startswith("fun_transformer.")
    return old.__qualname__ == new.__qualname__ and (old.__module__ == new.__module__ or not built_in)


def unknown_name(noun: str, name: object, known: Any) -> str:
    """Return the sentences that say that a name is not known, which ones are, and which was perhaps meant."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no {noun} {name!r}. There are {', '.join(known)}.{hint}"


METRICS = Table("metric", "title", "lower_is_better", "compares_texts")
OBJECTIVES = Table("objective", "has_targets", "can_pack", "options", "generates", "measured")
register_metric = METRICS.register
register_objective = OBJECTIVES.register
