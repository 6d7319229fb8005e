"""What one client may ask for, and what all of them together."""

from dataclasses import dataclass, fields

ALTERNATIVES = 10  # translations of one text, at most
TERMS = 1000  # of a request's glossary, at most
BYTES_OF_A_CHARACTER = 12  # in JSON: two escapes such as \ud83d for an emoji
BYTES_BESIDE_TEXTS = 65_536  # of a request: names, a key, a glossary


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each is 1 or more.

    Attributes:
        characters: Of all texts of a request.
        texts: Of a request.
        waiting: Texts of all clients that wait for one model.
        batch_tokens: Source tokens of a batch, padding with them.
        seconds: That a request may take.
        slow_seconds: That a client may take to send a request.
        connections: Open at a time.
    """

    characters: int = 10_000
    texts: int = 100
    waiting: int = 1_000
    batch_tokens: int = 800
    seconds: float = 60.0
    slow_seconds: float = 10.0
    connections: int = 500

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"The limit {field.name}={value} lets nothing through. Give 1 or more.")
        if self.texts > self.waiting:
            raise ValueError(
                f"A request may have {self.texts} texts, but only {self.waiting} may wait: it could never be "
                "answered. Allow fewer texts, or let more wait."
            )

    @property
    def body(self) -> int:
        """Return the most bytes of a request's body: room for its characters, however they are written."""
        return BYTES_OF_A_CHARACTER * self.characters + BYTES_BESIDE_TEXTS
