"""Tiny checkpoints of other families, as they lie on the Hub: config, weights, generation config, tokenizer.

    folder = save_tiny("marian", tmp_path / "base")

Weights are random but far from zero, so that what a family does beside the plain formulas can be seen in a loss.
"""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

WORDS = [f"w{number}" for number in range(40)]
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
SIZES |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
T5_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
BERT_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SEQ2SEQ = ("marian", "t5", "t5_v1_1", "mt5", "byt5", "bart", "mbart", "nllb", "pegasus")


def pieces(*special: str) -> list[tuple[str, float]]:
    """Return the vocabulary of a unigram tokenizer: words with a mark before them, and letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return [(token, 0.0) for token in (*special, *(f"▁{word}" for word in WORDS), "▁", *letters)]


def word_tokenizer(**special: str) -> Any:
    """Return a tokenizer of words in the frame of Marian's: a text, then its end."""
    tokens = {token: number for number, token in enumerate([*special.values(), *WORDS])}
    backend = Tokenizer(models.WordLevel(tokens, unk_token=special.get("unk_token")))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end := special.get("eos_token"):
        backend.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, tokens[end])])
    return hf.TokenizersBackend(tokenizer_object=backend, **special)


def byte_level(kind: Any) -> Any:
    """Return a tokenizer of GPT-2's or BART's kind over single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    return kind(vocab={token: number for number, token in enumerate([*special, *alphabet])}, merges=[])


def build_tokenizer(family: str) -> Any:
    """Return a tokenizer of a family's own class; Marian's needs sentencepiece, so a plain one has its frame."""
    if family == "marian":
        return word_tokenizer(eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    if family in ("t5", "t5_v1_1", "mt5"):
        return hf.T5Tokenizer(vocab=pieces("<pad>", "</s>", "<unk>"), extra_ids=0)
    if family == "byt5":
        return hf.ByT5Tokenizer(extra_ids=0)
    if family == "bart":
        return byte_level(hf.BartTokenizer)
    if family == "mbart":
        return hf.MBartTokenizer(vocab=[*pieces("<s>", "<pad>", "</s>", "<unk>"), ("en_XX", 0.0), ("ro_RO", 0.0)])
    if family == "nllb":
        vocab = [token for token, _ in pieces("<s>", "<pad>", "</s>", "<unk>")]
        return hf.NllbTokenizer(vocab={token: number for number, token in enumerate(vocab)}, merges=[])
    if family == "pegasus":
        return hf.PegasusTokenizer(vocab=pieces("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"))
    if family == "bert":
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        return hf.BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
    return byte_level(hf.GPT2Tokenizer)


def build_model(family: str, tokenizer: Any) -> Any:
    """Return a tiny model of a family with the vocabulary of its tokenizer."""
    size = len(tokenizer)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    t5 = {"vocab_size": size, **ids, "decoder_start_token_id": tokenizer.pad_token_id, **T5_SIZES}
    if family in ("t5", "byt5"):
        return hf.T5ForConditionalGeneration(hf.T5Config(**t5, tie_word_embeddings=family == "t5"))
    if family == "t5_v1_1":
        return hf.T5ForConditionalGeneration(
            hf.T5Config(**t5, tie_word_embeddings=False, feed_forward_proj="gated-gelu")
        )
    if family == "mt5":
        return hf.MT5ForConditionalGeneration(hf.MT5Config(**t5))
    kinds: dict[str, tuple[Any, Any]] = {
        "marian": (hf.MarianMTModel, hf.MarianConfig),
        "bart": (hf.BartForConditionalGeneration, hf.BartConfig),
        "mbart": (hf.MBartForConditionalGeneration, hf.MBartConfig),
        "nllb": (hf.M2M100ForConditionalGeneration, hf.M2M100Config),
        "pegasus": (hf.PegasusForConditionalGeneration, hf.PegasusConfig),
    }
    if family in kinds:
        model_class, config_class = kinds[family]
        start = tokenizer.pad_token_id if family in ("marian", "pegasus") else tokenizer.eos_token_id
        positions = {"max_position_embeddings": 64}
        config = config_class(
            vocab_size=size, **ids, **SIZES, **positions, decoder_start_token_id=start, forced_eos_token_id=None
        )
        return model_class(config)
    if family == "bert":
        return hf.BertForMaskedLM(hf.BertConfig(vocab_size=size, **BERT_SIZES, pad_token_id=tokenizer.pad_token_id))
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=size, **sizes, **end))


@torch.no_grad()
def save_tiny(family: str, folder: Path) -> Path:
    """Write a tiny checkpoint of a family; return its folder."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(family)
    model = build_model(family, tokenizer)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
