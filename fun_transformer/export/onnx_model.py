"""A translator that ONNX Runtime computes, for transformers' own `generate`: greedy, with beams, and all the rest."""

from pathlib import Path
from typing import Any

import torch
from onnxruntime import InferenceSession, SessionOptions
from torch import nn
from transformers import AutoConfig, GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..frontends import input_name, shrink
from .onnx_graphs import cache_names


def run(session: InferenceSession, **inputs: Any) -> dict[str, torch.Tensor]:
    """Compute a graph: name -> output."""
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, outputs)}


class OnnxEncoder(nn.Module):
    """The encoder."""

    def __init__(self, session: InferenceSession, main_input_name: str) -> None:
        super().__init__()
        self.session, self.main_input_name = session, main_input_name

    def forward(self, *, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Encode a batch; besides the source, `kwargs` are what `generate` passes to any encoder."""
        source = kwargs[self.main_input_name]
        length = source.shape[-1 if source.dim() == 4 else 1]  # pictures are (batch, channels, height, width)
        mask = torch.ones(len(source), length) if attention_mask is None else attention_mask
        inputs = {self.main_input_name: source, "attention_mask": mask.long()}
        states: Any = run(self.session, **inputs)["last_hidden_state"]
        return BaseModelOutput(last_hidden_state=states)


class OnnxModel(PreTrainedModel, GenerationMixin):
    """A folder of `fun-transformer export --to onnx`, with the interface of any encoder-decoder.

    `model = OnnxModel.open("folder")`, then `model.generate(**tokenizer(text, return_tensors="pt"))`. It computes on
    the CPU, has no gradients, and returns neither attention weights nor hidden states.
    """

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig, encoder: InferenceSession, decoder: InferenceSession) -> None:
        super().__init__(config)
        self.main_input_name = input_name(config)
        self.encoder = OnnxEncoder(encoder, self.main_input_name)
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

    def _prepare_attention_mask_for_generation(self, inputs_tensor, *args):
        """Without a mask all columns of a picture count, as in the model itself."""
        columns = inputs_tensor[:, 0, 0] if inputs_tensor.dim() == 4 else inputs_tensor  # (batch, width)
        return super()._prepare_attention_mask_for_generation(columns, *args)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Score the next token.

        Args:
            input_ids: (batch, source_len), unless there are `encoder_outputs`.
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len), those that are not yet in the cache.
            encoder_outputs: What the encoder returned.
            past_key_values: The cache; it grows by these tokens.
            input_features: Speech in place of `input_ids`, as the model itself reads it.
            pixel_values: Pictures.
            kwargs: What `generate` passes to any model.

        Returns:
            Logits (batch, target_len, vocab_size), and the cache.
        """
        if encoder_outputs is None:
            sources = {"input_ids": input_ids, "input_features": input_features, "pixel_values": pixel_values}
            encoder_outputs = self.encoder(attention_mask=attention_mask, **sources)
        states: Any = encoder_outputs.last_hidden_state
        shrunk = shrink(self.config, attention_mask)
        mask = torch.ones(states.shape[:2]) if shrunk is None else shrunk
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
