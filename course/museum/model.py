"""The Transformer of the paper in plain PyTorch, as small as it can be to write digits in reverse.

It is not the model of this package: it is the model that people write themselves when they follow a tutorial, with one
method for each thing that can go wrong. `exhibits.py` gets one of them wrong at a time.
"""

from pathlib import Path

import torch
from torch import nn

PAD, START, END, FIRST_DIGIT = 0, 1, 2, 3
VOCABULARY = FIRST_DIGIT + 10
IGNORED = -100  # labels that the loss counts nothing for
Past = dict[str, torch.Tensor]


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d_k)) V in several heads (section 3.2)."""

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.head_dim = d_model // heads
        self.q_proj, self.k_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.v_proj, self.out_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def split(self, states: torch.Tensor) -> torch.Tensor:
        """Split (batch, length, d_model) into (batch, heads, length, head_dim)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, asking, attended, may_attend, weigh, past: Past | None = None) -> torch.Tensor:
        """Attend; `weigh` makes weights of scores, `past` keeps the keys and values of earlier steps."""
        query = self.split(self.q_proj(asking))  # (batch, heads, query_len, head_dim)
        key, value = self.split(self.k_proj(attended)), self.split(self.v_proj(attended))
        if past is not None:
            if past:
                key, value = torch.cat([past["key"], key], dim=2), torch.cat([past["value"], value], dim=2)
            past["key"], past["value"] = key, value
        scores = query @ key.transpose(-2, -1) / self.head_dim**0.5  # (batch, heads, query_len, key_len)
        context = weigh(scores, may_attend) @ value
        return self.out_proj(context.transpose(1, 2).flatten(-2))  # (batch, query_len, d_model)


class SmallTransformer(nn.Module):
    """One encoder layer and one decoder layer, with tied embeddings and norms after the sublayers."""

    def __init__(self, d_model: int = 64, heads: int = 2):
        super().__init__()
        self.d_model = d_model
        self.embedding = nn.Embedding(VOCABULARY, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.output = nn.Linear(d_model, VOCABULARY, bias=False)
        self.output.weight = self.embedding.weight
        self.encoder_attention, self.decoder_attention = Attention(d_model, heads), Attention(d_model, heads)
        self.cross_attention = Attention(d_model, heads)
        self.encoder_ffn, self.decoder_ffn = self.feed_forward(), self.feed_forward()
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(5))

    def feed_forward(self) -> nn.Sequential:
        """Make the network that follows attention (section 3.3)."""
        return nn.Sequential(nn.Linear(self.d_model, 128), nn.ReLU(), nn.Linear(128, self.d_model))

    # ── what goes in ──

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens, (batch, length, d_model)."""
        return self.embedding(ids) * self.d_model**0.5

    def positions(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return what is added for the places of tokens, the first of which is at `first`."""
        places = torch.arange(first, first + ids.shape[1])  # (length,)
        return self.encode_places(places)  # (length, d_model)

    def encode_places(self, places: torch.Tensor) -> torch.Tensor:
        """Encode places as sines and cosines (section 3.5)."""
        angles = places[:, None] / 10000.0 ** (torch.arange(0, self.d_model, 2) / self.d_model)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (places, d_model)

    def decoder_inputs(self, labels: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads in training: `<s>`, then the labels but the last."""
        start = torch.full_like(labels[:, :1], START)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)  # (batch, target_len)
        return shifted.masked_fill(shifted == IGNORED, PAD)

    # ── who may look at whom: True = may ──

    def source_mask(self, source: torch.Tensor) -> torch.Tensor:
        """Hide the padding of the source from everybody, (batch, 1, 1, source_len)."""
        return (source != PAD)[:, None, None, :]

    def target_mask(self, length: int) -> torch.Tensor:
        """Hide later tokens of the target, (length, length)."""
        return torch.ones(length, length, dtype=torch.bool).tril()

    def weigh(self, scores: torch.Tensor, may_attend: torch.Tensor) -> torch.Tensor:
        """Make weights of scores, 0 where a query may not look."""
        return scores.masked_fill(~may_attend, torch.finfo(scores.dtype).min).softmax(-1)

    # ── the layers ──

    def add_and_norm(self, number: int, states: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """Add what a sublayer gives to what it got, and normalise."""
        return self.norms[number](states + added)

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        """Return the states of a source, (batch, source_len, d_model)."""
        states, mask = self.embed(source) + self.positions(source), self.source_mask(source)
        states = self.add_and_norm(0, states, self.encoder_attention(states, states, mask, self.weigh))
        return self.add_and_norm(1, states, self.encoder_ffn(states))

    def decode(self, target, encoded, source, past: Past | None = None, first: int = 0) -> torch.Tensor:
        """Return the logits of the token after each of the target, (batch, target_len, vocabulary)."""
        states = self.embed(target) + self.positions(target, first)
        mask, source_mask = self.target_mask(target.shape[1]), self.source_mask(source)[:, :, :1]
        states = self.add_and_norm(2, states, self.decoder_attention(states, states, mask, self.weigh, past))
        states = self.add_and_norm(3, states, self.cross_attention(states, encoded, source_mask, self.weigh))
        return self.output(self.add_and_norm(4, states, self.decoder_ffn(states)))

    # ── training, writing, saving ──

    def forward(self, source: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of each label, (batch, target_len, vocabulary)."""
        return self.decode(self.decoder_inputs(labels), self.encode(source), source)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of the labels that count."""
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    @torch.no_grad()
    def generate(self, source: torch.Tensor, steps: int) -> torch.Tensor:
        """Write token by token with a cache: each step reads one token, (batch, steps)."""
        encoded = self.encode(source)
        written, past = torch.full_like(source[:, :1], START), Past()
        for step in range(steps):
            logits = self.decode(written[:, -1:], encoded, source, past, self.place_of(step))
            written = torch.cat([written, logits[:, -1:].argmax(-1)], dim=1)
        return written[:, 1:]

    def place_of(self, step: int) -> int:
        """Return the place of the token that a step reads."""
        return step

    def save(self, path: Path) -> None:
        """Write the weights into a file."""
        torch.save(self.state_dict(), path)

    def load(self, path: Path) -> None:
        """Read the weights from a file."""
        self.load_state_dict(torch.load(path))


def make_batch(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Make digits of random lengths, and labels that are their reverse; both padded on the right, (batch, longest)."""
    lengths = torch.randint(3, 9, (size,), generator=generator).tolist()
    rows = [torch.randint(FIRST_DIGIT, VOCABULARY, (length,), generator=generator) for length in lengths]
    end = torch.tensor([END])

    def padded(texts, value):
        texts = [torch.cat([text, end]) for text in texts]
        return nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=value)

    return padded(rows, PAD), padded([row.flip(0) for row in rows], IGNORED)
