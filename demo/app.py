"""The app of a Space: `python demo/app.py` opens it on port 7860 (`pip install 'fun-transformer[space]'`)."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported

import answers
import gradio as gr

INTRO = """# fun_transformer
小模型，在 CPU 上运行：翻译常见的短句，也会出错。
Small models on a CPU: they translate short, common sentences, and they err.

[代码 · code](https://github.com/datawhalechina/fun-transformer) ·
[课程 · course](https://github.com/datawhalechina/fun-transformer/blob/main/docs/course.md)"""
ATTENTION = """**注意力 · Attention** 把鼠标放到一个词上，看它在每一层、每个头里看向哪里。
Hover over a token to see where it looks, in every layer and head."""
GENERATIONS = """同一个任务，两代模型：从英语拼写到发音（CMUdict 的音素）。
RNN 只有一层、一个注意力头；Transformer 画的是最后一层各头的平均。

The same task, two generations: English spelling to pronunciation (phonemes of CMUdict). The RNN has one layer with one
head of attention; of the Transformer the mean of the last layer's heads is drawn."""
EXAMPLES = [
    ["中文 → English", "今天天气很好。", 5, 3],
    ["中文 → English", "Kevin住在伦敦。", 5, 3],
    ["English → 中文", "Where is the station?", 5, 3],
]


def with_notice(function: Callable) -> Callable:
    """Show the user the sentence of a ValueError."""

    @wraps(function)
    def wrapped(*values: Any) -> Any:
        try:
            return function(*values)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped


def build() -> gr.Blocks:
    """Return the app: a tab for translations, and one for the two generations."""
    with gr.Blocks(title="fun_transformer") as app:
        gr.Markdown(INTRO)
        with gr.Tab("翻译 · Translate"):
            direction = gr.Radio(list(answers.DIRECTIONS), value="中文 → English", label="方向 · direction")
            text = gr.Textbox(label="原文 · source", lines=2, max_length=answers.MOST_CHARACTERS["translation"])
            with gr.Row():
                beams = gr.Slider(1, 10, value=5, step=1, label="束宽 · beams")
                count = gr.Slider(1, 10, value=3, step=1, label="译文个数 · answers")
            button = gr.Button("翻译 · Translate", variant="primary")
            best = gr.Textbox(label="译文 · translation", interactive=False)
            headers = ["#", "译文 · translation", "束搜索得分 · score", "平均对数概率 · mean log-probability"]
            table = gr.Dataframe(headers=headers, label="前几名 · n-best", interactive=False, wrap=True)
            gr.Markdown(ATTENTION)
            page = gr.HTML()
            inputs, outputs = [direction, text, beams, count], [best, table, page]
            gr.on([button.click, text.submit], with_notice(answers.translate), inputs, outputs, api_name="translate")
            gr.Examples(EXAMPLES, inputs, label="例子 · examples")
        with gr.Tab("RNN 与 Transformer · RNN and Transformer"):
            gr.Markdown(GENERATIONS)
            word = gr.Textbox(label="英语单词 · English word", value="attention")
            compare = gr.Button("比较 · Compare", variant="primary")
            shown: list[Any] = []
            with gr.Row():
                for name in ("RNN + 加性注意力 · additive attention", "Transformer"):
                    with gr.Column():
                        shown.append(gr.Textbox(label=name, interactive=False))
                        shown.append(gr.Plot(show_label=False))
            gr.on([compare.click, word.submit], with_notice(answers.pronounce), word, shown, api_name="pronounce")
    return app


if __name__ == "__main__":
    build().launch()
