"""Figure 1 of the paper, each box a link to its code. 论文的图 1，每个方框链接到代码。

`python -m examples.figure_1 [OUTPUT_DIR]` draws figure-1.svg and prints its boxes as a table.
"""

import sys
from pathlib import Path

from fun_transformer.visualization.figures import COLOURS, INK, PAPER, QUIET, theme_style

CODE = "https://github.com/datawhalechina/fun-transformer/blob/main/fun_transformer/"
FONTS = "15px system-ui, 'PingFang SC', 'Noto Sans SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
MODEL = "modeling_fun_transformer"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, _ = COLOURS
KINDS = {  # a kind of box: Chinese, English, colour, what it is in the code
    "embed": ("词嵌入", "Embedding", PURPLE, f"{MODEL}.Stack.embed"),
    "positions": ("位置编码", "Positional Encoding", QUIET, "positions.SinusoidalPositions"),
    "self": ("多头自注意力", "Multi-Head Attention", ORANGE, "attention.MultiHeadAttention"),
    "masked": ("带掩码的多头自注意力", "Masked Multi-Head Attention", ORANGE, "masks.decoder_masks"),
    "cross": ("交叉注意力", "Multi-Head Attention", VERMILION, f"{MODEL}.DecoderLayer"),
    "norm": ("残差连接与层归一化", "Add &amp; Norm", GREEN, f"{MODEL}.post_norm"),
    "feed": ("前馈网络", "Feed Forward", SKY, f"{MODEL}.FeedForward"),
    "linear": ("线性层", "Linear", BLUE, f"{MODEL}.FunTransformerForConditionalGeneration"),
    "softmax": ("softmax（训练时连同损失）", "Softmax", BLUE, "losses.linear_cross_entropy"),
}
LEFT, RIGHT, WIDE, HIGH = 210, 570, 224, 46  # middles of encoder and decoder; a box
ENCODER = {782: "embed", 640: "self", 574: "norm", 500: "feed", 434: "norm"}  # by the top of the box
DECODER = {782: "embed", 640: "masked", 574: "norm", 490: "cross", 424: "norm", 350: "feed", 284: "norm"}
DECODER |= {200: "linear", 126: "softmax"}
TEXTS = [(LEFT, 878, "源句 Inputs"), (RIGHT, 878, "目标句，右移一位 Outputs (shifted right)"), (404, 546, "K, V")]
TEXTS += [(RIGHT, 92, "下一个词元的概率 Output Probabilities"), (LEFT - 168, 570, "N ×"), (RIGHT + 168, 500, "N ×")]
TEXTS += [(RIGHT + 16, 562, "Q"), (LEFT, 755, "+"), (RIGHT, 755, "+")]


def box(kind: str, x: int, top: int, width: int = WIDE) -> str:
    """A box with its two names, a link to its code."""
    chinese, english, colour, symbol = KINDS[kind]
    place = f'x="{x - width // 2}" y="{top}" width="{width}" height="{HIGH}" rx="6"'
    return f"""<a href="{CODE}{symbol.split(".")[0]}.py"><title>{symbol}</title>
<rect {place} fill="{colour}" stroke="{colour}"/><text x="{x}" y="{top + 20}">{chinese}</text>
<text x="{x}" y="{top + 38}" class="en">{english}</text></a>"""


def arrow(*points: tuple[int, int]) -> str:
    return f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}" marker-end="url(#head)"/>'


def stack(x: int, boxes: dict[int, str], frame: int, side: int) -> list[str]:
    """Encoder (side -1) or decoder (side 1), from below: boxes, arrows, residual connections, positions."""
    parts = [
        f'<rect x="{x - 144}" y="{frame}" width="288" height="{716 - frame}" rx="12"/>',
        arrow((x, 864), (x, 828)),
    ]
    parts += [
        f'<circle cx="{x}" cy="750" r="12"/>',
        arrow((x, 738), (x, 686)),
        arrow((x + side * 48, 750), (x + side * 12, 750)),
    ]
    tops = sorted(boxes, reverse=True)
    for low, high in zip(tops, [*tops[1:], *([58] if side > 0 else [])]):
        parts.append(arrow((x, low), (x, 762 if high == 640 else high + HIGH)))
        if boxes.get(high) == "norm":  # around the sublayer below it
            start, out, end = (702 if low == 640 else low + 62), x + side * 132, x + side * WIDE // 2
            parts.append(arrow((x, start), (out, start), (out, high + 23), (end, high + 23)))
    return parts + [box(kind, x, top) for top, kind in boxes.items()] + [box("positions", x + side * 124, 727, 152)]


def main() -> None:
    to_decoder = [(LEFT, 434), (LEFT, 396), (384, 396), (384, 552)]  # what the encoder found, to each decoder layer
    parts = [*stack(LEFT, ENCODER, 416, -1), *stack(RIGHT, DECODER, 266, 1)]
    parts += [arrow(*to_decoder, (x, 552), (x, 536)) for x in (RIGHT - 84, RIGHT - 42)]
    parts += [f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in TEXTS]
    body = "\n".join(parts).replace("<text ", f'<text fill="{INK}" stroke="none" ')
    page = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 60 780 840" width="780" height="840">
<title>The Transformer</title>
<style>text {{ font: {FONTS}; text-anchor: middle }} .en {{ font-size: 13px }} a rect {{ fill-opacity: .18 }}</style>
{theme_style()}<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0L8 4L0 8z" fill="{QUIET}"/></marker><rect width="780" height="900" fill="{PAPER}"/>
<g fill="none" stroke="{QUIET}">\n{body}\n</g></svg>\n"""
    (Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "figure-1.svg").write_text(page, encoding="utf-8")
    for chinese, english, _, symbol in KINDS.values():
        names, file = f"{chinese} | {english}".replace("amp;", ""), symbol.split(".")[0] + ".py"
        print(f"| {names} | `{symbol}` | [{file}](../fun_transformer/{file}) |")


if __name__ == "__main__":
    main()
