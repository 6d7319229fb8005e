"""API keys: a file with a key a line."""

import hmac
from pathlib import Path

SHORTEST = 8  # characters


class ApiKeys:
    """The keys that open a server; without any it is open to everybody.

    Args:
        keys: Any strings.
    """

    def __init__(self, keys: list[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    @classmethod
    def load(cls, path: str | Path) -> "ApiKeys":
        """Read keys, one a line; empty lines and lines that begin with # say nothing.

        Raises:
            OSError: There is no such file.
            ValueError: It has no key, or one that is too short, or is no UTF-8.
        """
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ValueError(f"{path} has no API key. Write one a line, of {SHORTEST} characters or more.")
        if short := [number for number, line in enumerate(lines, 1) if line in keys and len(line) < SHORTEST]:
            raise ValueError(f"{path}, line {short[0]}: an API key has {SHORTEST} characters or more.")
        return cls(keys)

    def allow(self, key: str) -> bool:
        """Tell whether a key is one of these, in a time that does not depend on how much of it is right."""
        given = key.encode()
        equal = [hmac.compare_digest(given, known) for known in self._keys]
        return any(equal) or not self._keys
