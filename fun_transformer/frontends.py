"""Front ends stand in for the box "Input Embedding" of Figure 1 where the source is no text, but speech or a picture.

A spectrogram and the picture of a line of writing are both pictures that are read in one direction. So both go through
the same layers: convolutions of stride 2, each of which halves the length, and a linear layer to d_model (Dong et al.
2018, Speech-Transformer). Where a page or a formula has rows that belong apart, `image_rows` of them are kept, one
after the other, each with a learned vector (as in Deng et al. 2017, arXiv:1609.04938).

`FRONT_ENDS` is an open table: add a class to it, and `source_modality` of a config may name it.
"""

import math

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

# `pipeline("automatic-speech-recognition")` takes models of all other classes for CTC. Told here, for remote code too.
MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES["fun_transformer"] = "FunTransformerForConditionalGeneration"


def is_text(config: PreTrainedConfig) -> bool:
    """Say whether the source of a model is token ids, which need no front end."""
    return getattr(config, "source_modality", "text") == "text"


def input_name(config: PreTrainedConfig) -> str:
    """Return the name of the argument that holds a model's source."""
    return "input_ids" if is_text(config) else FRONT_ENDS[config.source_modality].input_name


def shrink(config: PreTrainedConfig, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return the mask of what the encoder reads.

    Args:
        config: The model's.
        attention_mask: (batch, length), 1 = token or frame or column of pixels, 0 = padding, which is on the right.

    Returns:
        (batch, source_len). That of a text is as it was; None stays None.
    """
    if attention_mask is None or is_text(config):
        return attention_mask
    return attention_mask[:, :: 2**config.frontend_layers].repeat_interleave(rows_of(config), dim=1)


def output_lengths(config: PreTrainedConfig, lengths):
    """Return how many vectors the encoder reads for sources of these lengths; a number, an array or a tensor."""
    return lengths if is_text(config) else -(-lengths // 2**config.frontend_layers) * rows_of(config)


def output_height(config: PreTrainedConfig) -> int:
    """Return the height of a picture after the convolutions, which `image_rows` divides."""
    return -(-config.image_height // 2**config.frontend_layers)


def rows_of(config: PreTrainedConfig) -> int:
    """Return how many vectors stand for one place along the source."""
    return config.image_rows if config.source_modality == "image" else 1


def refuse_features(config: PreTrainedConfig, reader: str) -> None:
    """Refuse a model whose source is no text.

    Args:
        config: The model's.
        reader: What can read texts only, for the message.

    Raises:
        ValueError: Saying how to use the model.
    """
    if not is_text(config):
        front_end = FRONT_ENDS[config.source_modality]
        raise ValueError(
            f"{reader} reads text, and the source of this model is {config.source_modality}. Load it with "
            f'{front_end.auto_class}, or use pipeline("{front_end.task}", model=...).'
        )


def source_of(config: PreTrainedConfig, **inputs: torch.Tensor | None) -> torch.Tensor | None:
    """Return the features among the inputs of an encoder; None for a text, which has none.

    Args:
        config: The model's.
        inputs: All that an encoder can be given, by name.

    Raises:
        ValueError: When there are none, or inputs of another modality.
    """
    given = [name for name, value in inputs.items() if value is not None]
    wanted = input_name(config)
    if is_text(config):
        if strange := [name for name in given if name not in (wanted, "inputs_embeds")]:
            raise ValueError(f"The model reads text and got {', '.join(strange)}. Pass {wanted}.")
    elif given != [wanted]:
        raise ValueError(
            f"The source of this model is {config.source_modality}: pass {wanted}. It got "
            f"{' and '.join(given) or 'none'}."
        )
    return inputs[wanted] if not is_text(config) else None


class FrontEnd(nn.Module):
    """Y = ReLU(W * X) with 3 x 3 convolutions of stride 2, then a linear layer; one vector for each place left.

    Weights begin so that the variance is kept on the way (He et al. 2015, arXiv:1502.01852): nothing needs to be
    scaled then before positions are added. With strings of spoken digits a factor of sqrt(d_model), which token
    embeddings have, made learning slower.

    Padding is set to 0 before each convolution: the bias makes it something else again, which the next one would see.
    With kernel 3, padding 1 and stride 2 a length n becomes ceil(n / 2), and the mask of that is each second element.

    Args:
        config: The model's.
        channels: Number of channels of a picture.
        height: Its height.
    """

    input_name: str  # the model's argument
    length_axis: int  # of it, along which sources differ in length
    auto_class: str  # the Auto class of models that write text
    task: str  # their pipeline

    def __init__(self, config: PreTrainedConfig, channels: int, height: int):
        super().__init__()
        self.config, self.shape, self.rows = config, (channels, height), rows_of(config)
        self.convolutions = nn.ModuleList()
        for _ in range(config.frontend_layers):
            self.convolutions.append(nn.Conv2d(channels, config.frontend_channels, 3, stride=2, padding=1))
            channels, height = config.frontend_channels, (height + 1) // 2
        self.out_proj = nn.Linear(channels * height // self.rows, config.d_model)
        if self.rows > 1:
            self.embed_rows = nn.Embedding(self.rows, config.d_model)

    def sample(self, length: int) -> torch.Tensor:
        """Return random features of one source, as the class says."""
        raise NotImplementedError

    def to_picture(self, features: torch.Tensor) -> torch.Tensor:
        """Turn what the model is given into (batch, channels, length, height)."""
        raise NotImplementedError

    def forward(
        self, features: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Read a source.

        Args:
            features: As the class says.
            attention_mask: (batch, length), 1 = frame or column, 0 = padding, which is on the right.

        Returns:
            Embeddings (batch, source_len, d_model), their mask (batch, source_len) and positions (1, source_len).

        Raises:
            ValueError: When features or mask have another shape.
        """
        states, mask = self.to_picture(features), attention_mask  # (batch, channels, length, height)
        if mask is not None and mask.shape != (states.shape[0], states.shape[2]):
            raise ValueError(
                f"attention_mask is {tuple(mask.shape)}, but {self.input_name} has {states.shape[2]} places for each "
                f"of {states.shape[0]} sources. Pass a mask of that shape: 1 = frame or column, 0 = padding."
            )
        states = states.to(self.convolutions[0].weight.dtype)
        for convolution in self.convolutions:
            if mask is not None:
                states = states.masked_fill(mask[:, None, :, None] == 0, 0.0)
                mask = mask[:, ::2]
            states = nn.functional.relu(convolution(states))  # (batch, channels, length / 2, height / 2)
        states = states.unflatten(-1, (self.rows, -1)).permute(0, 2, 3, 1, 4).flatten(-2)
        embeds = self.out_proj(states)  # (batch, length, rows, d_model)
        if self.rows > 1:  # begins with variance 1 / d_model, as all embeddings do
            embeds = embeds + math.sqrt(self.config.d_model) * self.embed_rows.weight
        embeds = embeds.flatten(1, 2)  # (batch, source_len, d_model)
        places = torch.arange(embeds.shape[1], device=embeds.device) // self.rows  # (source_len,)
        return embeds, shrink(self.config, attention_mask), places.unsqueeze(0)


class SpeechFrontEnd(FrontEnd):
    """Reads spectrograms, (batch, frames, num_mel_bins)."""

    input_name, length_axis = "input_features", 1
    auto_class, task = "AutoModelForSpeechSeq2Seq", "automatic-speech-recognition"

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config, 1, config.num_mel_bins)

    def sample(self, length: int) -> torch.Tensor:
        """Return random features, (1, frames, num_mel_bins)."""
        return torch.randn(1, length, self.shape[1])

    def to_picture(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (batch, frames, num_mel_bins) into (batch, 1, frames, num_mel_bins)."""
        if features.dim() != 3 or features.shape[2] != self.shape[1]:
            raise ValueError(
                f"input_features is {tuple(features.shape)}, but the model reads (batch, frames, {self.shape[1]}): "
                "make them with the feature extractor that was saved with it."
            )
        # Extractors divide by the standard deviation, which is 0 in silence: 0 is what they give for the mean.
        return features.nan_to_num(0.0).unsqueeze(1)


class ImageFrontEnd(FrontEnd):
    """Reads pictures, (batch, num_channels, image_height, width), column by column."""

    input_name, length_axis = "pixel_values", 3
    auto_class, task = "AutoModelForImageTextToText", "image-to-text"

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config, config.num_channels, config.image_height)

    def sample(self, length: int) -> torch.Tensor:
        """Return random pixels, (1, num_channels, image_height, width)."""
        return torch.randn(1, *self.shape, length)

    def to_picture(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (batch, num_channels, image_height, width) into (batch, num_channels, width, image_height)."""
        if features.dim() != 4 or tuple(features.shape[1:3]) != self.shape:
            raise ValueError(
                f"pixel_values is {tuple(features.shape)}, but the model reads (batch, {self.shape[0]}, "
                f"{self.shape[1]}, width): make them with the image processor that was saved with it."
            )
        return features.transpose(2, 3)


FRONT_ENDS: dict[str, type[FrontEnd]] = {"speech": SpeechFrontEnd, "image": ImageFrontEnd}

__all__ = ["FRONT_ENDS", "FrontEnd", "input_name", "is_text", "output_height", "output_lengths", "refuse_features"]
__all__ += ["shrink", "source_of"]
