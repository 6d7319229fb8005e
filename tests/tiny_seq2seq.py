"""Encoder-decoders of several families with random weights, and a tokenizer of whole words for them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from fun_transformer import (
    FunTransformerConfig,
    FunTransformerForConditionalGeneration,
    Seq2SeqRNNConfig,
    Seq2SeqRNNForConditionalGeneration,
)

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnop"]
IDS = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
}
RNN = {**IDS, "d_model": 16, "decoder_start_token_id": 1}
FAMILIES = {
    "marian": lambda: MarianMTModel(MarianConfig(**IDS, **SIZES, init_std=1.0, decoder_start_token_id=0)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**IDS, **SIZES, init_std=1.0, decoder_start_token_id=2)),
    "m2m100": lambda: M2M100ForConditionalGeneration(
        M2M100Config(**IDS, **SIZES, init_std=1.0, decoder_start_token_id=2)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(**IDS, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    ),
    "fun_transformer": lambda: FunTransformerForConditionalGeneration(
        FunTransformerConfig(**IDS, **SIZES, decoder_start_token_id=1)
    ),
    "linear": lambda: FunTransformerForConditionalGeneration(
        FunTransformerConfig(**IDS, **SIZES, decoder_start_token_id=1, encoder_layer_types=["linear_attention"] * 2)
    ),
    "rnn": lambda: Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(**RNN, attention_score="additive")),
    "rnn_fixed": lambda: Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(**RNN, attention_score="none")),
}


def tiny_model(family: str, seed: int = 1):
    """A model in eval mode whose weights are large enough to prefer one token to another."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    if family != "t5":
        return model
    with torch.no_grad():  # T5's own initialisation gives nearly equal logits
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words to ids, and `</s>` at the end."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)
