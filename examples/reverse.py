"""Train a Transformer in a minute: it learns to write digits in reverse. 一分钟训练：把数字倒过来写。

`python -m examples.reverse [OUTPUT_DIR] [STEPS]` draws attention_reverse.svg: the model has found out for itself where
to look, from the last digit to the first.
"""

import sys
from pathlib import Path

import torch

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.analysis import AttentionMap
from fun_transformer.visualization import plot_attention

PAD, START, END, FIRST_DIGIT = 0, 1, 2, 3
WARMUP = 100


def make_batch(size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Digits of random lengths, padded; the target is the source in reverse."""
    rows = []
    for length in torch.randint(3, 9, (size,), generator=generator).tolist():
        rows.append(torch.randint(FIRST_DIGIT, FIRST_DIGIT + 10, (length,), generator=generator))
    end = torch.tensor([END])

    def padded(texts):
        return torch.nn.utils.rnn.pad_sequence([torch.cat([text, end]) for text in texts], batch_first=True)

    source, labels = padded(rows), padded([row.flip(0) for row in rows])  # (batch, length), (batch, length)
    return {"input_ids": source, "attention_mask": (source != PAD).long(), "labels": labels}


def accuracy(model, generator: torch.Generator) -> float:
    """How many new sequences are reversed without a mistake."""
    batch = make_batch(200, generator)
    labels = batch.pop("labels")
    written = model.eval().generate(**batch, max_new_tokens=labels.shape[1])[:, 1:]  # (batch, at most length)
    written = torch.nn.functional.pad(written, (0, labels.shape[1] - written.shape[1]), value=PAD)
    return (written == labels).all(dim=1).float().mean().item()


def show(ids: torch.Tensor) -> list[str]:
    return ["</s>" if token == END else str(token - FIRST_DIGIT) for token in ids.tolist()]


def main() -> None:
    folder, steps = Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2] if len(sys.argv) > 2 else 1500)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    sizes = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = FunTransformerForConditionalGeneration(FunTransformerConfig(vocab_size=13, dropout=0.0, **sizes, **heads))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(step / WARMUP, (WARMUP / step) ** 0.5)
        loss = model(**make_batch(64, generator), label_smoothing=0.0).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}")
    print(f"{accuracy(model, generator):.0%} of 200 new sequences are reversed without a mistake")

    source = torch.tensor([[3, 4, 5, 6, 7, 8, END]])
    written = model.generate(source, max_new_tokens=8)
    weights = model(source, decoder_input_ids=written[:, :-1], output_attentions=True).cross_attentions
    texts = [show(source[0]), show(written[0, 1:])]
    found = AttentionMap("".join(texts[0][:-1]), "".join(texts[1][:-1]), *texts, torch.cat(weights).detach())
    print(f"{found.source} -> {found.target}")
    plot_attention(found, folder / "attention_reverse.svg")


if __name__ == "__main__":
    main()
