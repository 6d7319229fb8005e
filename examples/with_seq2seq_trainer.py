"""Our batches and our loss inside transformers' `Seq2SeqTrainer`. 在 Trainer 里使用本项目的部件。

`python -m examples.with_seq2seq_trainer [STEPS]` trains a small Marian with the trainer as it comes, then with batches
of about equally many tokens (`TokenBudgetSampler`) and a loss that never holds all logits: `give_exact_loss` puts
`linear_cross_entropy` into a model of any family, so that mixed precision and several processes work as ever.
"""

import sys
import tempfile
from functools import partial

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import MarianConfig, MarianMTModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

from fun_transformer.training import Share, TokenBudgetSampler, give_exact_loss, pad_batch

PAD, END, VOCAB = 0, 1, 2000
BATCH_TOKENS = 1024


class TokenBudgetTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` with our batches."""

    def get_train_dataloader(self) -> DataLoader:
        lengths = ([len(row[side]) for row in self.train_dataset] for side in ("input_ids", "labels"))
        share = Share(self.args.process_index, self.args.world_size)  # each process reads its own rows
        sampler = TokenBudgetSampler(*lengths, BATCH_TOKENS, self.args.seed, share)
        loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
        return prepare_data_loader(loader, num_processes=1, process_index=0)  # it now knows of epochs


def make_rows(count: int) -> list[dict[str, list[int]]]:
    """Numbers, to be written in reverse: mostly few, at times many, as words of a sentence."""
    generator = torch.Generator().manual_seed(0)
    lengths = 3 + torch.empty(count).exponential_(1 / 12, generator=generator).clamp(max=80).long()
    texts = [torch.randint(2, VOCAB, (int(length),), generator=generator).tolist() for length in lengths]
    return [{"input_ids": [*text, END], "labels": [*text[::-1], END]} for text in texts]


def build_trainer(kind: type[Seq2SeqTrainer], rows: list, steps: int, folder: str) -> Seq2SeqTrainer:
    """A trainer of a small model with fresh weights."""
    torch.manual_seed(0)
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    ids = {"vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
    options = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": not torch.cuda.is_available()}
    options |= {"learning_rate": 1e-3, "max_steps": steps, "include_num_input_tokens_seen": "non_padding"}
    arguments = Seq2SeqTrainingArguments(folder, **options)
    model = MarianMTModel(MarianConfig(**sizes, **heads, **ids))
    if kind is TokenBudgetTrainer:
        give_exact_loss(model)
    return kind(model, arguments, train_dataset=rows, data_collator=partial(pad_batch, pad_token_id=PAD))


def main() -> None:
    rows, steps = make_rows(2000), int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        for kind in (Seq2SeqTrainer, TokenBudgetTrainer):
            trainer = build_trainer(kind, rows, steps, folder)
            found = trainer.train().metrics
            speed = trainer.state.num_input_tokens_seen / found["train_runtime"]
            print(f"{kind.__name__}: loss {found['train_loss']:.2f}, {speed:,.0f} source tokens a second")


if __name__ == "__main__":
    main()
