"""What the app shows, without gradio: translations, attention, two generations of models on the same word.

In a checkout the models are those of hub_configs; on a Space they are loaded from the Hub, from the account that
FUN_TRANSFORMER_OWNER names.
"""

import os
import tempfile
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from transformers import Pipeline, pipeline

import fun_transformer  # noqa: F401  registers the models and the pipelines
from fun_transformer.analysis import AttentionMap, cross_attention
from fun_transformer.visualization import plot_attention, write_attention_page

OWNER = os.environ.get("FUN_TRANSFORMER_OWNER", "datawhalechina")
CHECKOUT = Path(__file__).parents[1] / "hub_configs"
DIRECTIONS = {"中文 → English": "zh-en-small", "English → 中文": "en-zh-small"}
GENERATIONS = ("rnn-additive", "g2p-en-distilled")  # Bahdanau et al. 2015, Vaswani et al. 2017
MOST_CHARACTERS = {"translation": 400, "text2text-generation": 40}
PAGE = '<iframe srcdoc="{page}" title="attention" style="width: 100%; height: 860px; border: 0"></iframe>'


def find_model(name: str) -> str:
    """Return the folder of a model in the checkout; its name on the Hub where there is none."""
    folder = CHECKOUT / name
    return str(folder) if (folder / "model.safetensors").exists() else f"{OWNER}/{name}"


@cache
def load(name: str) -> Pipeline:
    """Return the pipeline of a model, which stays in memory."""
    return pipeline("translation" if name in DIRECTIONS.values() else "text2text-generation", model=find_model(name))


def checked(text: str, pipe: Pipeline) -> str:
    """Return a text without spaces around it.

    Raises:
        ValueError: There is none, or it is longer than a shared machine should answer.
    """
    text, most = text.strip(), MOST_CHARACTERS[pipe.task]
    if not text:
        raise ValueError("There is no text yet: type some. 请先输入文字。")
    if len(text) > most:
        raise ValueError(
            f"The text has {len(text)} characters, {most} are allowed. 文字太长，请缩短到 {most} 个字符以内。"
        )
    return text


def translate(direction: str, text: str, beams: int, answers: int) -> tuple[str, list[list[Any]], str]:
    """Translate a text.

    Args:
        direction: One of `DIRECTIONS`.
        text: The text.
        beams: Of the search.
        answers: How many translations to give, at most as many as there are beams.

    Returns:
        The best translation; a row for each one: rank, text, score, mean log-probability of a token; the attention of
        the best one as HTML.

    Raises:
        ValueError: There is no text, it is too long, or there are more answers than beams.
    """
    beams, answers = int(beams), int(answers)
    pipe = load(DIRECTIONS[direction])
    text = checked(text, pipe)
    if answers > beams:
        raise ValueError(
            f"{answers} answers need {answers} beams, not {beams}. {answers} 个译文至少要 {answers} 条束。"
        )
    found = pipe(text, num_beams=beams, num_return_sequences=answers, return_scores=True)
    records = found if isinstance(found[0], dict) else found[0]
    rows = [
        [rank, record["translation_text"], round(record["score"], 3), round(record["mean_log_probability"], 3)]
        for rank, record in enumerate(records, start=1)
    ]
    return rows[0][1], rows, attention_page(cross_attention(pipe.model, pipe.tokenizer, text, num_beams=beams))


def attention_page(seen: AttentionMap) -> str:
    """Return the page on which attention can be explored, as a frame for another page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        write_attention_page(seen, path)
        return PAGE.format(page=escape(path.read_text(encoding="utf-8")))


def pronounce(word: str) -> tuple[Any, ...]:
    """Let an RNN with attention and a Transformer write the phonemes of an English word.

    Args:
        word: The word.

    Returns:
        For each of `GENERATIONS` the phonemes, and a matplotlib figure of where it looked.

    Raises:
        ValueError: There is no word, or it is too long.
    """
    shown: list[Any] = []
    for name in GENERATIONS:
        pipe = load(name)
        seen = cross_attention(pipe.model, pipe.tokenizer, checked(word, pipe).lower())
        shown += [seen.target, plot_attention(seen)]
    return tuple(shown)
