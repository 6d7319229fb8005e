"""A translator of torch.nn's own layers: what other tools' Transformers compute, without any code of ours."""

import math

import torch
from torch import nn


class TorchTranslator(nn.Module):
    """Encoder, decoder, embeddings and an output layer; all weights are random, norms and biases too.

    Args:
        source_size, target_size: Of the vocabularies.
        width, heads, ffn_dim: Of all layers; there are two in the encoder and three in the decoder.
        norm_first: Pre-norm with a norm at the end of each stack; else post-norm without.
        activation: Of torch.
        eps: What LayerNorms add to variances.
        tied: The output layer is the target's embedding.
        output_bias: The output layer has a bias.
        positions: Number of learned positions; None: sinusoids, and embeddings times sqrt(width).
    """

    def __init__(
        self,
        source_size,
        target_size,
        *,
        width=16,
        heads=4,
        ffn_dim=24,
        norm_first=False,
        activation="relu",
        eps=1e-5,
        tied=False,
        output_bias=False,
        positions=None,
    ):
        super().__init__()
        common = {"activation": activation, "layer_norm_eps": eps, "batch_first": True, "norm_first": norm_first}
        norms = [nn.LayerNorm(width, eps=eps) if norm_first else None for _ in range(2)]
        encoder_layer = nn.TransformerEncoderLayer(width, heads, ffn_dim, 0.1, **common)
        decoder_layer = nn.TransformerDecoderLayer(width, heads, ffn_dim, 0.1, **common)
        self.encoder = nn.TransformerEncoder(encoder_layer, 2, norms[0], enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder_layer, 3, norms[1])
        self.source = nn.Embedding(source_size, width)
        self.target = nn.Embedding(target_size, width)
        self.output = nn.Linear(width, target_size, bias=output_bias)
        if positions:
            self.source_places, self.target_places = nn.Embedding(positions, width), nn.Embedding(positions, width)
        self.positions = positions
        for parameter in self.parameters():
            nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.3)
        if tied:
            self.output.weight = self.target.weight
        self.eval()

    def place(self, states, table):
        """Add positions to embeddings."""
        _, length, width = states.shape
        if self.positions:
            return states + table.weight[:length]
        angles = torch.arange(length)[:, None] * torch.exp(-torch.arange(0, width, 2) / width * math.log(10000))
        return states * math.sqrt(width) + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)

    @torch.no_grad()
    def forward(self, source_ids, target_ids):
        """(batch, source_len), (batch, target_len) -> logits (batch, target_len, target_size)."""
        memory = self.encoder(self.place(self.source(source_ids), getattr(self, "source_places", None)))
        mask = nn.Transformer.generate_square_subsequent_mask(target_ids.shape[1])
        target = self.place(self.target(target_ids), getattr(self, "target_places", None))
        return self.output(self.decoder(target, memory, tgt_mask=mask))

    def greedy(self, source_ids, bos, eos, longest=10):
        """Return the most likely target tokens one by one, without the ends, for one source."""
        ids = [bos]
        while len(ids) <= longest:
            logits = self(torch.tensor([source_ids]), torch.tensor([ids]))[0, -1]
            logits[bos] = -math.inf
            if len(ids) == 1:
                logits[eos] = -math.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == eos:
                break
        return [number for number in ids[1:] if number != eos]

    def named(self, layer_names, stacks=("encoder.layers", "decoder.layers")):
        """Return the weights of both stacks by the names of another tool.

        Args:
            layer_names: For "encoder" and "decoder": what torch calls `self_attn`, `multihead_attn`, `linear1`,
                `linear2` and `norm1` to `norm3`; under "attention": its parts `q`, `k`, `v` and `out`.
            stacks: What the lists of layers are called.
        """
        found = {}
        for name, prefix in zip(("encoder", "decoder"), stacks):
            names, parts = layer_names[name], layer_names["attention"]
            for i, layer in enumerate(getattr(self, name).layers):
                for part, module in layer.named_children():
                    if isinstance(module, nn.MultiheadAttention):
                        thirds = zip("qkv", module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3))
                        out = ("out", module.out_proj.weight, module.out_proj.bias)
                        for key, weight, bias in (*thirds, out):
                            new = f"{prefix}.{i}.{names[part]}.{parts[key]}"
                            found |= {f"{new}.weight": weight, f"{new}.bias": bias}
                    elif part in names:
                        new = f"{prefix}.{i}.{names[part]}"
                        found |= {f"{new}.weight": module.weight, f"{new}.bias": module.bias}
        return {name: value.detach().clone() for name, value in found.items()}
