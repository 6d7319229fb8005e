"""Make docs/museum.md and its picture of the exhibits and their measured symptoms: `python -m course.museum.page`."""

import inspect
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course.museum.exhibits import EXHIBITS, Exhibit
from course.museum.model import SmallTransformer
from course.museum.run import RESULTS
from fun_transformer.files import write_atomically

DOCS = Path(__file__).parents[2] / "docs"
HEAD = """\
# 错误博物馆 · The bug museum

这里的每个模型都只错了一两个方法。它们都能运行，大多数还能学到东西，没有一个报错。每个展品有四样东西：
错误的代码、实测的症状、训练之前就能发现它的测试、改正。模型是用纯 PyTorch 写的小 Transformer
（[model.py](../course/museum/model.py)），任务是把数字倒过来写。

Each model here gets a method or two wrong. All of them run, most learn something, and none raises an error. An exhibit
has four things: the wrong code, its measured symptom, a test that finds it before any training, and the mend. The
model is a small Transformer in plain PyTorch ([model.py](../course/museum/model.py)) that writes digits in reverse.

`python -m course.museum.run` trains all of them again ({steps:,} steps of 64 texts, seed {seed}, some minutes on one
thread), `python -m course.museum.page` makes this page. Tokens: right ones where the decoder reads the true text
before. Texts: written without a mistake, in batches of 50, one by one, and by the model that was saved and loaded. All
of 200 new texts, in percent.

| | 损失 · loss | 词 · tokens | 文本 · texts | 逐句 · one by one | 存取后 · loaded |
| --- | --- | --- | --- | --- | --- |
{rows}

![损失曲线 · loss curves](images/museum.svg)
"""
ROOM = """
## {number}. {zh} · {en}

{symptom_zh}

{symptom_en}

错误 · wrong:

```python
{broken}
```

正确 · right:

```python
{right}
```

测试 · the test that fails:

```python
{check}
```

{mend_zh}

{mend_en}
"""


def source_of(function: Callable) -> str:
    """Return the code of a function, without its docstring."""
    lines = textwrap.dedent(inspect.getsource(function)).rstrip().splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith('"""'))


def row(name: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    numbers = [f"{found['losses'][-1]:.3f}", *(f"{found[key]:.1f}" for key in ("tokens", "texts", "alone", "loaded"))]
    return f"| {name} | {' | '.join(numbers)} |"


def room(number: int, exhibit: Exhibit) -> str:
    """Return the section of an exhibit."""
    methods = exhibit.methods
    return ROOM.format(
        number=number,
        zh=exhibit.title[0],
        en=exhibit.title[1],
        symptom_zh=exhibit.symptom[0],
        symptom_en=exhibit.symptom[1],
        broken="\n\n".join(source_of(vars(exhibit.broken)[name]) for name in methods),
        right="\n\n".join(source_of(vars(SmallTransformer)[name]) for name in methods),
        check=source_of(exhibit.check),
        mend_zh=exhibit.mend[0],
        mend_en=exhibit.mend[1],
    )


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    found = results["models"]
    rows = [row("没有错误 · nothing wrong", found["SmallTransformer"])]
    rows += [
        row(
            f"[{number}](#{anchor(number, exhibit)}) {exhibit.title[0]} · {exhibit.title[1]}",
            found[exhibit.broken.__name__],
        )
        for number, exhibit in enumerate(EXHIBITS, 1)
    ]
    head = HEAD.format(rows="\n".join(rows), steps=results["steps"], seed=results["seed"])
    return head + "".join(room(number, exhibit) for number, exhibit in enumerate(EXHIBITS, 1))


def anchor(number: int, exhibit: Exhibit) -> str:
    """Return the address of a section, as GitHub makes it of its title."""
    title = f"{number}. {exhibit.title[0]} · {exhibit.title[1]}".lower()
    return "".join(letter for letter in title if letter.isalnum() or letter in " -_").replace(" ", "-")


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the losses of each exhibit beside those of the right model."""
    from fun_transformer.visualization.figures import COLOURS, QUIET, drawing, new_figure, save_figure

    right, legend = results["models"]["SmallTransformer"]["losses"], ("没有错误 · nothing wrong", "有错误 · wrong")
    steps = [results["shown"] * (place + 1) for place in range(len(right))]
    titles = [f"{number}. {exhibit.title[0]}\n{exhibit.title[1]}" for number, exhibit in enumerate(EXHIBITS, 1)]
    with drawing("".join([*titles, *legend, "步损失"])):
        figure = new_figure(9.6, 8.8)
        axes = figure.subplots(4, 3, sharex=True, sharey=True).flat
        for title, exhibit, axis in zip(titles, EXHIBITS, axes, strict=False):
            axis.plot(steps, right, color=QUIET, label=legend[0])
            wrong = results["models"][exhibit.broken.__name__]["losses"]
            axis.plot(steps, wrong, color=COLOURS[1], label=legend[1])
            if math.isnan(wrong[0]):
                axis.text(steps[-1], 1, "NaN", color=COLOURS[1], ha="right")
            axis.set_title(title)
            axis.set_yscale("log")
            axis.set_ylim(7e-4, 7)
            axis.minorticks_off()
        axes[len(EXHIBITS)].axis("off")
        axes[len(EXHIBITS)].legend(*axes[0].get_legend_handles_labels(), loc="center")
        figure.supxlabel("步 · steps")
        figure.suptitle("损失 · loss", x=0.01, ha="left")
        save_figure(figure, path)


def main() -> None:
    """Write the page and the picture."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    write_atomically(DOCS / "museum.md", page(results))
    draw(results, DOCS / "images" / "museum.svg")


if __name__ == "__main__":
    main()
