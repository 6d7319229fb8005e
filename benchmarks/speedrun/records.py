"""A record is a JSON file; README.md shows them as a table."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.speedrun.tracks import TRACKS
from fun_transformer.files import write_atomically

README = Path(__file__).parent / "README.md"
RECORDS = Path(__file__).parent / "records"
TABLE = re.compile(r"(?<=<!-- records -->\n).*?(?=<!-- end -->)", re.DOTALL)


def read_records(folder: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """All records by the name of their file, the fastest of a track first."""
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: (list(TRACKS).index(item[1]["track"]), item[1]["seconds"])))


def write_record(record: dict[str, Any], folder: Path = RECORDS) -> Path:
    """Write a record under the first free name of its track."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = (number for number in range(1, 10_000) if not (folder / f"{record['track']}-{number:03}.json").exists())
    path = folder / f"{record['track']}-{next(numbers):03}.json"
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def table(records: dict[str, dict[str, Any]]) -> str:
    """The records as Markdown; a track without one says so."""
    lines = [
        "| track | target on test | reached | seconds | steps | tokens | on | seed | commit | log |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, track in TRACKS.items():
        target = f"| {name} | {track.metric.upper()} {track.target:g} |"
        of_track = {file: record for file, record in records.items() if record["track"] == name}
        for file, record in of_track.items():
            cells = [f"{record['test']:.2f}", f"{record['seconds']:,.0f}", f"{record['steps']:,}"]
            cells += [f"{record['tokens']:,}", record["hardware"], str(record["seed"]), record["commit"][:7]]
            lines.append(f"{target} {' | '.join(cells)} | [{file}](records/{file}) |")
        if not of_track:
            lines.append(f"{target} no record yet |" + " |" * 7)
    return "\n".join(lines) + "\n"


def write_table() -> None:
    """Write the table of all records into README.md."""
    text = README.read_text(encoding="utf-8")
    write_atomically(README, TABLE.sub(lambda _: table(read_records()), text))
