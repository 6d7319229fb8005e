"""Make the page of the quiz, one file that opens without network: `python -m course.quiz.build -o site/quiz.html`."""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from fun_transformer.files import write_atomically

HERE = Path(__file__).parent
PAGE = Path(__file__).parents[2] / "site" / "quiz.html"


def read_questions() -> list[dict[str, Any]]:
    """Return the questions as they are written."""
    return yaml.safe_load((HERE / "questions.yaml").read_text(encoding="utf-8"))


def build(output: Path) -> None:
    """Write the page: the template with the questions in it, without the checks."""
    questions = read_questions()
    for question in questions:
        for choice in question["choices"]:
            del choice["holds"]
    data = json.dumps(questions, ensure_ascii=False).replace("</", "<\\/")
    page = (HERE / "page.html").read_text(encoding="utf-8").replace('"QUESTIONS"', data)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page)


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    options = parser.parse_args()
    build(options.output)
    print(f"{len(read_questions())} questions in {options.output}")


if __name__ == "__main__":
    main()
