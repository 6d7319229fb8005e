"""A translator that ONNX Runtime computes, for transformers' own `generate`: greedy, with beams, and all the rest."""

from pathlib import Path
from typing import Any

import torch
from onnxruntime import InferenceSession, SessionOptions
from torch import nn
from transformers import AutoConfig, GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .onnx_graphs import cache_names


def run(session: InferenceSession, **inputs: Any) -> dict[str, torch.Tensor]:
    """Compute a graph: name -> output."""
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, outputs)}


class OnnxEncoder(nn.Module):
    """The encoder."""

    main_input_name = "input_ids"

    def __init__(self, session: InferenceSession) -> None:
        super().__init__()
        self.session = session

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """Encode (batch, source_len); `kwargs` are what `generate` passes to any encoder."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states: Any = run(self.session, input_ids=input_ids, attention_mask=mask.long())["last_hidden_state"]
        return BaseModelOutput(last_hidden_state=states)


class OnnxModel(PreTrainedModel, GenerationMixin):
    """A folder of `fun-transformer export --to onnx`, with the interface of any encoder-decoder.

    `model = OnnxModel.open("folder")`, then `model.generate(**tokenizer(text, return_tensors="pt"))`. It computes on
    the CPU, has no gradients, and returns neither attention weights nor hidden states.
    """

    config_class = PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(self, config: PreTrainedConfig, encoder: InferenceSession, decoder: InferenceSession) -> None:
        super().__init__(config)
        self.encoder = OnnxEncoder(encoder)
        self.session = decoder
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # says which device and type inputs need

    @classmethod
    def open(cls, folder: str | Path) -> "OnnxModel":
        """Load a folder.

        Raises:
            ValueError: There is no model in it.
        """
        encoders = sorted(Path(folder).glob("onnx/encoder_model*.onnx"))
        if not encoders:
            raise ValueError(f"{folder} has no onnx/encoder_model.onnx. Give a folder that export --to onnx wrote.")
        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        paths = [encoders[0], encoders[0].with_name(encoders[0].name.replace("encoder_model", "decoder_model_merged"))]
        sessions = [InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths]
        model = cls(AutoConfig.from_pretrained(folder), *sessions)
        model.generation_config = GenerationConfig.from_pretrained(folder)
        return model.eval()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the encoder; there is one."""
        return self.encoder

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Score the next token.

        Args:
            input_ids: (batch, source_len), unless there are `encoder_outputs`.
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len), those that are not yet in the cache.
            encoder_outputs: What the encoder returned.
            past_key_values: The cache; it grows by these tokens.
            kwargs: What `generate` passes to any model.

        Returns:
            Logits (batch, target_len, vocab_size), and the cache.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        states: Any = encoder_outputs.last_hidden_state
        mask = torch.ones(states.shape[:2]) if attention_mask is None else attention_mask
        cache = self.read(past_key_values, len(states))
        results = run(
            self.session,
            input_ids=decoder_input_ids,
            encoder_hidden_states=states,
            encoder_attention_mask=mask.long(),
            use_cache_branch=torch.tensor([past_key_values is not None and past_key_values.get_seq_length() > 0]),
            **cache,
        )
        if past_key_values is not None:
            self.keep(past_key_values, results)
        return Seq2SeqLMOutput(logits=results["logits"], past_key_values=past_key_values)

    def read(self, past_key_values: EncoderDecoderCache | None, batch: int) -> dict[str, torch.Tensor]:
        """Return keys and values by name; those of no tokens where the cache is empty."""
        config = self.config
        names = cache_names(config.decoder_layers)
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            empty = torch.zeros(
                batch, config.decoder_attention_heads, 0, config.d_model // config.decoder_attention_heads
            )
            return dict.fromkeys(names, empty)
        parts = (past_key_values.self_attention_cache, past_key_values.cross_attention_cache)
        layers: Any = zip(*(part.layers for part in parts))
        return dict(zip(names, (states for pair in layers for layer in pair for states in (layer.keys, layer.values))))

    def keep(self, past_key_values: EncoderDecoderCache, results: dict[str, torch.Tensor]) -> None:
        """Put a call's keys and values, which begin with those of the calls before, into the cache."""
        parts = {"decoder": past_key_values.self_attention_cache, "encoder": past_key_values.cross_attention_cache}
        for part, cache in parts.items():
            names = iter(cache_names(self.config.decoder_layers, "present", (part,)))
            cache.layers = []
            for key, value in zip(names, names):
                layer = DynamicLayer()
                layer.update(results[key], results[value])
                cache.layers.append(layer)


__all__ = ["OnnxModel"]
