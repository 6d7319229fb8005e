"""What all models share that choose tokens, whatever they are made of: embeddings, the decoder's input, the loss."""

import dataclasses
import difflib

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast, MaskedLMOutput, Seq2SeqLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .frontends import input_name, is_text
from .losses import IGNORE_INDEX, linear_cross_entropy, loss_of_logits, number_of_labels, shift_tokens_right


def tied_embeddings(config: PreTrainedConfig) -> dict[str, str]:
    """Return which embedding is another one (paper, section 3.4): the target's is the source's, if the config says so.

    Returns:
        Name of a weight -> name of the weight that it is tied to, as transformers wants it.
    """
    if config.share_encoder_decoder_embeddings:
        return {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
    return {}


def tied_output_layer(config: PreTrainedConfig, prefix: str = "") -> dict[str, str]:
    """Return which embedding the output layer is (paper, section 3.4), if the config ties them: the target's.

    Args:
        config: The model's.
        prefix: Of the names of encoder and decoder in the model, such as "model.".

    Returns:
        As in `tied_embeddings`; a shared embedding is saved as the encoder's.
    """
    if not config.tie_word_embeddings:
        return {}
    owner = "encoder" if config.share_encoder_decoder_embeddings else "decoder"
    return {"lm_head.weight": f"{prefix}{owner}.embed_tokens.weight"}


NO_LOGITS = (
    "There are no logits: with labels a model in training leaves them out, which saves their memory. Call it with "
    "skip_logits=False to get them."
)


class LeftOut:
    """What a class has in the place of `logits`: reading them from an output that has none is an error that says why.

    An AttributeError, so that hasattr() is False and getattr() with a default works.
    """

    def __get__(self, output, output_class=None):
        """Refuse; Python asks here only where the output itself has no logits."""
        raise AttributeError(NO_LOGITS)


class TokenOutput:
    """What the outputs of all models that choose tokens share: they say how to get logits that were left out."""

    logits = LeftOut()

    def __post_init__(self):
        super().__post_init__()
        if self.__dict__.get("logits") is None:
            self.__dict__.pop("logits", None)
            # No field of this output either: FSDP and `dataclasses.replace` read all fields that there are.
            fields = type(self).__dataclass_fields__.items()
            self.__dict__["__dataclass_fields__"] = {name: field for name, field in fields if name != "logits"}

    def __getitem__(self, key):
        if "logits" not in self and key not in ("loss", 0):
            if key == "logits":
                raise KeyError(NO_LOGITS)
            if not isinstance(key, str):  # outputs[1] is something else now, which a loss might take for the logits
                raise IndexError(NO_LOGITS)
        return super().__getitem__(key)

    def __reduce__(self):
        return type(self), tuple(self.__dict__.get(field.name) for field in dataclasses.fields(type(self)))

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.items())})"


@dataclasses.dataclass(repr=False, eq=False)
class Seq2SeqTokenOutput(TokenOutput, Seq2SeqLMOutput):
    """The output of encoder and decoder."""


@dataclasses.dataclass(repr=False, eq=False)
class MaskedTokenOutput(TokenOutput, MaskedLMOutput):
    """The output of an encoder alone."""


@dataclasses.dataclass(repr=False, eq=False)
class CausalTokenOutput(TokenOutput, CausalLMOutputWithPast):
    """The output of a decoder alone."""


class TokenModel(PreTrainedModel):
    """The base of both model families."""

    def __init__(self, config: PreTrainedConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.main_input_name = input_name(self.config)

    def embedding_stacks(self) -> list[nn.Module]:
        """Return the stacks that look tokens up, the source's first."""
        stacks = [getattr(self.base_model, name, None) for name in ("encoder", "decoder")]
        return [stack for stack in stacks if hasattr(stack, "embed_tokens")] or [self.base_model]

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the tokens that are read first, (vocab_size, d_model)."""
        return self.embedding_stacks()[0].embed_tokens

    def set_input_embeddings(self, value: nn.Module):
        """Replace that embedding, and the target's where they are one."""
        for stack in self.embedding_stacks()[: 1 + self.config.share_encoder_decoder_embeddings]:
            stack.embed_tokens = value

    @torch.no_grad()
    def _init_weights(self, module):
        """Xavier for projections (Glorot & Bengio 2010); N(0, 1 / d_model) for embeddings, variance 1 once scaled."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.d_model**-0.5)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args, **kwargs) -> str:
        """Refuse an attention kernel that cannot run here in a sentence; the library asks whenever one is chosen.

        Raises:
            ValueError: Naming the kernels that can.
        """
        try:
            return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)
        except Exception as error:  # of many types: a package that is missing, no such name, no network for a kernel
            supported = {"sdpa": self._supports_sdpa, "flex_attention": self._supports_flex_attn}
            usable = ["eager", *(name for name, is_supported in supported.items() if is_supported)]
            name = str(attn_implementation)
            if name not in ALL_ATTENTION_FUNCTIONS.valid_keys() and "/" not in name:
                reason = "".join(f" Did you mean {near}?" for near in difflib.get_close_matches(name, usable, n=1))
            elif self._supports_flash_attn:
                reason = f" {error}"
            else:
                reason = f" A {self.config.model_type} has no such kernel."
            raise ValueError(  # the first words are the library's, whose tests ask for them
                f'Specified `attn_implementation="{name}"` is not supported here. Choose one of '
                f"{', '.join(usable)}.{reason}"
            ) from error

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict:
        """Return the tied weights that the model names: the library would tie all of them or none.

        Source and target may share an embedding while the output layer has its own.
        """
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return dict(self._tied_weights_keys or {})

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Make room for more tokens: source, target and output grow together, since they share one vocabulary.

        Raises:
            ValueError: When source and target have embeddings of their own.
        """
        one_vocabulary = self.config.decoder_vocab_size == self.config.vocab_size
        has_two = self.config.is_encoder_decoder and is_text(self.config)
        if has_two and not self.config.share_encoder_decoder_embeddings:
            raise ValueError(
                "Source and target have separate embeddings, so it is not clear which to resize. Build a model with "
                "the new vocab_size and decoder_vocab_size, and copy the weights."
            )
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if one_vocabulary:
            self.config.decoder_vocab_size = self.config.vocab_size
        return embeddings

    def shift_right(self, labels: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Make the decoder's input from the target.

        Args:
            labels: (batch, target_len), padded with -100 or `pad_token_id`.
            position_ids: (batch, target_len), for packed rows.

        Returns:
            (batch, target_len), as in `shift_tokens_right`.
        """
        start = self.config.decoder_start_token_id
        padding = start if self.config.pad_token_id is None else self.config.pad_token_id
        return shift_tokens_right(labels, padding, start, position_ids)

    def token_loss(
        self,
        hidden_states: torch.Tensor,
        output_layer: nn.Linear | None,
        labels: torch.Tensor,
        label_smoothing: float | None,
        num_items_in_batch: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """Compare the tokens that a model chooses with labels: chunked cross-entropy with label smoothing.

        Labels of padding are to be -100, as everywhere in transformers. Padding with `pad_token_id` is ignored too,
        unless a text ends with the same token, which has to be learned. A `Trainer`, which counts the labels, does not
        know this: so the number that it gives is lowered here by the padding's share in this batch.

        Args:
            hidden_states: (batch, seq_len, d_model); logits or their logarithms of probabilities, (batch, seq_len,
                vocab_size), without an output layer.
            output_layer: d_model -> vocab_size, without bias.
            labels: (batch, seq_len); -100 and `pad_token_id` are ignored.
            label_smoothing: Instead of the config's.
            num_items_in_batch: Number of labels to divide by, which counts all but -100; None for that of this batch,
                without those ignored.

        Returns:
            Scalar.
        """
        if label_smoothing is None:
            label_smoothing = self.config.label_smoothing
        weight = None if output_layer is None else output_layer.weight
        if hasattr(weight, "full_tensor"):  # it is split over devices
            weight = weight.full_tensor()
        labels = labels.to(hidden_states.device if weight is None else weight.device)
        counted = (labels != IGNORE_INDEX).sum()
        if self.config.pad_token_id not in (None, self.config.eos_token_id):
            labels = labels.masked_fill(labels == self.config.pad_token_id, IGNORE_INDEX)
        if weight is None:
            loss = loss_of_logits(hidden_states, labels, label_smoothing, num_items_in_batch)
        else:
            loss = linear_cross_entropy(hidden_states, weight, labels, label_smoothing, num_items_in_batch)
        if num_items_in_batch is None:
            return loss
        return loss * (counted / number_of_labels(labels, None))  # times 1 without padding
