"""Make a notebook of each chapter of docs/course.md, and run them: `python -m course.notebooks.build [--run FOLDER]`.

docs/course.md is the one source. A notebook runs by itself, here and on Colab: it begins with the code of earlier
chapters that its own needs, and an exercise that a chapter links to becomes cells. Notebooks are committed without
outputs; `--run` runs them all and writes pages with the outputs into a folder (`make notebooks`).
"""

import argparse
import ast
import builtins
import dis
import json
import re
from pathlib import Path
from types import CodeType
from typing import Any

from fun_transformer.files import write_atomically

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
REPOSITORY = "https://github.com/datawhalechina/fun-transformer"
COLAB = "https://colab.research.google.com/github/datawhalechina/fun-transformer/blob/main/course/notebooks"
RAW = "https://raw.githubusercontent.com/datawhalechina/fun-transformer/main"
CHAPTER = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#:]+)((?:#[^)]*)?\))")
BY_PYTHON = {"__name__", "__module__", "__qualname__"}
EXERCISE = re.compile(r"\.\./course/exercises/(\w+)\.py")
SET_UP = f"""\
# 在代码仓库里什么也不做；在 Colab 上先安装。 · In a checkout this does nothing; on Colab it installs.
import os
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
root = next((folder for folder in folders if (folder / "hub_configs").is_dir()), None)
if root is None:
    !git clone --quiet --depth 1 {REPOSITORY}
    %pip install --quiet -e "./fun-transformer[train,viz,demo]"
    root = Path("fun-transformer").resolve()
os.chdir(root)
sys.path.insert(0, str(root))"""

Cell = dict[str, Any]


def build() -> dict[str, str]:
    """Return the notebooks by file name."""
    text = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    heads = list(CHAPTER.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    notebooks, earlier = {}, list[str]()
    for head, end in zip(heads, ends, strict=True):
        chapter = text[head.start() : end].split("\n## ")[0]  # chapters without a number end it, too
        name = f"{int(head[1]):02d}.ipynb"
        cells = [markdown(f"[Colab]({COLAB}/{name})"), code(SET_UP), *earlier_cells(chapter, earlier)]
        cells += [*chapter_cells(chapter), *exercise_cells(chapter)]
        for number, cell in enumerate(cells):
            cell["id"] = f"{head[1]}-{number}"
        notebooks[name] = as_json(cells)
        earlier += PYTHON.findall(chapter)
    return notebooks


def as_json(cells: list[Cell]) -> str:
    """Return the file of a notebook."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def markdown(text: str) -> Cell:
    """Return a cell of text."""
    return {"cell_type": "markdown", "metadata": {}, "source": text.strip().splitlines(keepends=True)}


def code(text: str) -> Cell:
    """Return a cell of code that has not run."""
    source = text.strip().splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def chapter_cells(chapter: str) -> list[Cell]:
    """Return the text and the code of a chapter in turn."""
    parts = PYTHON.split(chapter)  # text, code, text, ...
    cells = [code(part) if number % 2 else markdown(with_addresses(part)) for number, part in enumerate(parts)]
    return [cell for cell in cells if cell["source"]]


def with_addresses(text: str) -> str:
    """Replace links to files by addresses, since a notebook is read elsewhere."""

    def address(match: re.Match) -> str:
        path = (ROOT / "docs" / match[2]).resolve().relative_to(ROOT.resolve())
        base = RAW if match[1].startswith("!") else f"{REPOSITORY}/blob/main"
        return f"{match[1]}{base}/{path.as_posix()}{match[3]}"

    return LINK.sub(address, text)


def earlier_cells(chapter: str, earlier: list[str]) -> list[Cell]:
    """Return the code of earlier chapters whose names a chapter uses, in its order."""
    needed, (_, wanted) = set[int](), names_of("\n".join(PYTHON.findall(chapter)))
    for number in reversed(range(len(earlier))):
        made, missing = names_of(earlier[number])
        if made & wanted:
            needed.add(number)
            wanted = (wanted - made) | missing
    if not needed:
        return []
    before = "\n\n".join(earlier[number].strip() for number in sorted(needed))
    return [markdown("前面几章的代码 · Code of earlier chapters"), code(before)]


def names_of(block: str) -> tuple[set[str], set[str]]:
    """Return the names that code makes, and those that it uses before it has made them."""
    made, missing = set[str](), set[str]()
    codes = [compile(block, "course.md", "exec")]
    for one in codes:  # functions and comprehensions are codes of their own, which are appended on the way
        for step in dis.get_instructions(one):
            if step.opname == "STORE_NAME" and one is codes[0]:
                made.add(step.argval)
            elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in made:
                missing.add(step.argval)
        codes += [constant for constant in one.co_consts if isinstance(constant, CodeType)]
    return made, missing - set(dir(builtins)) - BY_PYTHON


def exercise_cells(chapter: str) -> list[Cell]:
    """Return the exercises that a chapter links to: the function to fill in, and its check."""
    cells = []
    for name in EXERCISE.findall(chapter):
        source = (ROOT / "course" / "exercises" / f"{name}.py").read_text(encoding="utf-8")
        body = ast.parse(source).body
        title = ast.get_docstring(ast.parse(source)).splitlines()[0].split(" (")[0]
        kept = [ast.get_source_segment(source, node) for node in body[1:-1]]
        function = next(node.name for node in body if isinstance(node, ast.FunctionDef))
        cells += [markdown(f"### {title}"), code("\n\n".join(kept)), code(f'check("{name}", {function})')]
    return cells


def run(folder: Path) -> None:
    """Run all notebooks and write their pages."""
    import nbconvert
    import nbformat
    from nbclient import NotebookClient
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm(sorted(HERE.glob("*.ipynb")), desc="notebooks"):
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE)}})
        client.extra_arguments = ["--log-level=40"]  # nothing about how the kernel is reached
        client.execute()
        page, _ = nbconvert.HTMLExporter(embed_images=False).from_notebook_node(notebook)
        write_atomically(folder / f"{path.stem}.html", page)


def main() -> None:
    """Write the notebooks, and run them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="run them, and write pages with outputs there")
    options = parser.parse_args()
    for name, text in build().items():
        write_atomically(HERE / name, text)
    if options.run:
        run(options.run)


if __name__ == "__main__":
    main()
