"""Beam search by hand: keep the best few beginnings, not only the best one. 束搜索：保留最好的几个开头。

`python -m examples.beam_search [OUTPUT_DIR]` translates with hub_configs/zh-en-small and draws beam_search.svg.

    score(y) = log p(y; x) / n^alpha, n the number of tokens
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401  registers the model
from fun_transformer.visualization import Node, plot_search_tree

MODEL = Path(__file__).parents[1] / "hub_configs" / "zh-en-small"
TEXT, BEAMS = "今天吃什么好", 2


@torch.no_grad()
def beam_search(model, source: torch.Tensor, beams: int, alpha: float = 1.0, max_new_tokens: int = 20):
    """All that was tried, as nodes of a tree: (parent, token, sum of log probabilities, state)."""
    end, nodes = model.config.eos_token_id, [(None, model.config.decoder_start_token_id, 0.0, "kept")]
    running, ended = [0], []  # numbers of nodes
    encoded = model.get_encoder()(source)
    for length in range(1, max_new_tokens + 1):
        tried = []
        for node in running:
            ids = torch.tensor([prefix(nodes, node)])  # (1, length)
            logits = model(encoder_outputs=encoded, decoder_input_ids=ids).logits[0, -1]  # (vocab_size,)
            best = logits.log_softmax(-1).topk(beams)
            tried += [(node, token, nodes[node][2] + log_p) for log_p, token in zip(*map(torch.Tensor.tolist, best))]
        tried.sort(key=lambda one: one[2], reverse=True)
        running = []
        for rank, (parent, token, log_p) in enumerate(tried):
            is_end = token == end and rank < beams
            state = "ended" if is_end else "kept" if token != end and len(running) < beams else "pruned"
            ended += [(log_p / length**alpha, len(nodes))] if state == "ended" else []
            running += [len(nodes)] if state == "kept" else []
            nodes.append((parent, token, log_p, state))
        if len(ended) >= beams:
            break
    return nodes, sorted(ended, reverse=True)


def prefix(nodes: list, node: int | None) -> list[int]:
    """The tokens from the start to a node."""
    ids: list[int] = []
    while node is not None:
        ids, node = [nodes[node][1], *ids], nodes[node][0]
    return ids


def main() -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForSeq2SeqLM.from_pretrained(MODEL)
    source = tokenizer(TEXT, return_tensors="pt").input_ids
    for beams in (1, BEAMS):
        nodes, ended = beam_search(model, source, beams)
        score, best = ended[0]
        early = {"early_stopping": True} if beams > 1 else {}
        ours = model.generate(source, num_beams=beams, max_new_tokens=20, **early)[0].tolist()
        np.testing.assert_equal(prefix(nodes, best), ours)
        text = tokenizer.decode(ours, skip_special_tokens=True)
        print(f"beams {beams}: {text} | log p {nodes[best][2]:.2f}, a token {score:.2f}; generate says the same")
    for alpha in (0.0, 1.0, 1.5):
        for score, number in beam_search(model, source, BEAMS, alpha)[1]:
            print(
                f"  alpha {alpha}: {score:6.2f}  {tokenizer.decode(prefix(nodes, number), skip_special_tokens=True)}"
            )

    drawn = []
    for number, (parent, token, log_p, state) in enumerate(nodes):
        name = tokenizer.convert_ids_to_tokens(token).replace("▁", " ").strip() or "␣"
        drawn.append(Node(name, parent, log_p, "best" if number == best else state))
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    title = f"{TEXT}：数字是 log p 之和，灰色剪掉，橙色选中 · sums of log p; gray: pruned, orange: chosen"
    plot_search_tree(drawn, folder / "beam_search.svg", title)


if __name__ == "__main__":
    main()
