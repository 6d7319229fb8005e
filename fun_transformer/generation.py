"""What `generate` of the Transformer does in its own way: the fast encoder and searches, pictures, and copying.

Each method takes the place of one of transformers, and leaves to it what it does not know.
"""

from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin

from .fast_generation import fast_decoder_for, fast_encoding, takes_usual_cache
from .fast_search import BeamSearch, Sampling
from .positions import position_ids_from_mask


class Seq2SeqGenerationMixin(GenerationMixin):
    """`generate` for an encoder-decoder.

    Attributes:
        fast_parts: The classes of a modeling file that `FastDecoder` and `encode` have another way to compute.
    """

    fast_parts: set[type] = set()

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        """Count positions before a static cache turns the mask into a 4-D one, from which they cannot be read."""
        if decoder_attention_mask is not None and decoder_attention_mask.dim() == 2:
            kwargs["decoder_position_ids"] = position_ids_from_mask(decoder_attention_mask)
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def _prepare_attention_mask_for_generation(self, inputs_tensor, *args):
        """Without a mask all columns of a picture count; the library would take its channels for them."""
        columns = inputs_tensor[:, 0, 0] if inputs_tensor.dim() == 4 else inputs_tensor  # (batch, width)
        return super()._prepare_attention_mask_for_generation(columns, *args)

    def _prepare_model_inputs(self, inputs, bos_token_id, model_kwargs):
        """Keep the ids of the source for each step, where tokens are copied from it.

        Raises:
            ValueError: There is no source; the library would begin with a text of one token instead.
        """
        wanted = self.main_input_name
        if inputs is None and wanted != "input_ids" and not {wanted, "encoder_outputs"} & model_kwargs.keys():
            raise ValueError(f"The source of this model is {self.config.source_modality}: pass {wanted} to generate.")
        inputs, name, model_kwargs = super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        if self.copy_layer is not None and name == "input_ids" and "encoder_outputs" not in model_kwargs:
            model_kwargs["decoder_source_ids"] = inputs
        return inputs, name, model_kwargs

    def _maybe_prepare_encoder_kwargs_for_generation(self, inputs_tensor, model_kwargs, name, generation_config):
        """Encode the source, unless the caller has; `name` is that of the inputs. Not asked in transformers 5.17."""
        encoded = fast_encoding(self, self.fast_parts, generation_config, {**model_kwargs, name: inputs_tensor})
        if encoded is not None:
            model_kwargs["encoder_outputs"] = encoded
        return super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, name, generation_config
        )

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args):
        """Begin with an empty cache; to find out which kind, the library would copy the config several times."""
        if not takes_usual_cache(self.config, generation_config, model_kwargs):
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)
        model_kwargs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def _beam_search(self, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        """Search with beams; `kwargs` are settings of transformers' loop, and of the model at each step."""
        call = (logits_processor, stopping_criteria, generation_config)
        decoder = fast_decoder_for(self, self.fast_parts, input_ids, generation_config, kwargs)
        if decoder is None:
            return super()._beam_search(input_ids, *call, **kwargs)
        return BeamSearch(decoder, *call).run(input_ids)

    def _sample(self, input_ids, logits_processor, stopping_criteria, generation_config, streamer=None, **kwargs):
        """Search greedily or draw tokens, as `_beam_search`; a streamer gets each token at once."""
        call = (logits_processor, stopping_criteria, generation_config)
        decoder = fast_decoder_for(self, self.fast_parts, input_ids, generation_config, kwargs)
        if decoder is None:
            return super()._sample(input_ids, *call, streamer=streamer, **kwargs)
        return Sampling(decoder, *call).run(input_ids, streamer)
