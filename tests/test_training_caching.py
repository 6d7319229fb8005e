"""What is found out about many rows is kept, and never mixed up with what was found out about others."""

import datasets
import numpy as np
import pytest

from fun_transformer import FunTransformerTokenizer
from fun_transformer.training.data import caching
from fun_transformer.training.data.caching import learned_once, remembered, tokenizer_content
from fun_transformer.training.data.rows import TokenRows
from fun_transformer.training.data.splits import column_texts, is_among, sample_keys
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

CALLS = []


def lengths_of(rows, column, more=0):
    """A slow look at all rows."""
    CALLS.append(column)
    return np.array([len(text) + more for text in rows[column]])


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Rows on disk, enough of them to be worth keeping what is found out; the calls of `lengths_of` are counted."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(caching, "ROWS_PER_PROCESS", 4)
    CALLS.clear()
    texts = [f"{'ab' * (row % 5)}c" for row in range(40)]
    datasets.Dataset.from_dict({"source": texts, "target": texts[::-1]}).save_to_disk(tmp_path / "saved")
    return datasets.load_from_disk(tmp_path / "saved")


def test_what_is_found_out_about_rows_is_found_again(rows, tmp_path):
    found = remembered(rows, lengths_of, "source")
    again = datasets.load_from_disk(tmp_path / "saved")
    assert remembered(again, lengths_of, "source").tolist() == found.tolist() == [len(text) for text in rows["source"]]
    assert CALLS == ["source"]


def test_other_rows_and_other_questions_have_other_answers(rows):
    half = rows.select(range(1, 40, 2))
    assert remembered(rows, lengths_of, "source")[:4].tolist() == [1, 3, 5, 7]
    assert remembered(half, lengths_of, "source")[:4].tolist() == [3, 7, 1, 5]
    assert remembered(rows, lengths_of, "target")[:2].tolist() == [9, 7]
    assert remembered(rows, lengths_of, "source", 10)[:2].tolist() == [11, 13]
    assert (
        remembered(rows.shuffle(seed=3), lengths_of, "source").tolist()
        != remembered(rows, lengths_of, "source").tolist()
    )
    assert len(CALLS) == 5


def test_rows_whose_files_were_replaced_are_looked_at_again(rows, tmp_path):
    remembered(rows, lengths_of, "source")
    (tmp_path / "other").mkdir()
    changed = rows.map(lambda row: {"source": row["source"] + "!"}, keep_in_memory=True)
    changed.save_to_disk(tmp_path / "other")
    state = (tmp_path / "saved" / "state.json").read_text()
    name = next((tmp_path / "other").glob("*.arrow"))
    name.replace(next((tmp_path / "saved").glob("*.arrow")))
    (tmp_path / "saved" / "state.json").write_text(state)  # the name that `datasets` gives to them is as before
    assert remembered(datasets.load_from_disk(tmp_path / "saved"), lengths_of, "source")[0] == 2


def test_a_damaged_answer_is_looked_for_again(rows, tmp_path):
    found = remembered(rows, lengths_of, "source")
    kept = next((tmp_path / "cache").rglob("*.npy"))
    for content in (b"", kept.read_bytes()[:-8]):
        kept.write_bytes(content)
        assert remembered(rows, lengths_of, "source").tolist() == found.tolist()
    assert len(CALLS) == 3 and not list((tmp_path / "cache").rglob("*.partial"))


def test_few_rows_and_rows_in_memory_are_looked_at_each_time(rows, tmp_path):
    for small in (rows.select(range(3)), datasets.Dataset.from_dict({"source": ["a"] * 9})):
        assert remembered(small, lengths_of, "source").tolist() == remembered(small, lengths_of, "source").tolist()
    assert len(CALLS) == 4 and not list((tmp_path / "cache").rglob("*.npy"))


def test_a_vocabulary_is_learned_once_and_is_the_same_again(rows, tmp_path):
    settings, learned = TokenizerSettings(type="bpe", vocab_size=280), []

    def learn():
        learned.append(1)
        return train_tokenizer(rows["source"][:], rows["target"][:], settings)

    fresh, again = (learned_once(rows, learn, FunTransformerTokenizer, settings) for _ in range(2))
    assert len(learned) == 1 and tokenizer_content(fresh) == tokenizer_content(again)
    assert fresh.name_or_path == again.name_or_path
    assert fresh("ababc x", text_target="abc") == again("ababc x", text_target="abc")
    for name, tokenizer in (("fresh", fresh), ("again", again)):
        tokenizer.save_pretrained(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "fresh").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((tmp_path / "fresh" / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
    learned_once(rows, learn, FunTransformerTokenizer, TokenizerSettings(type="bpe", vocab_size=281))
    assert len(learned) == 2
    for path in (tmp_path / "cache").rglob("tokenizer.json"):
        path.write_text("{")
    learned_once(rows, learn, FunTransformerTokenizer, settings)
    assert len(learned) == 3


def test_a_checksum_is_that_of_the_selected_rows(rows):
    tokens = rows.map(lambda row: {"input_ids": [len(row["source"])], "labels": [1, len(row["target"])]})
    wanted = [TokenRows(part).compute_checksum() for part in (tokens, tokens.select(range(39, -1, -1)))]
    assert [TokenRows(part).checksum() for part in (tokens, tokens.select(range(39, -1, -1)))] == wanted
    assert wanted[0] != wanted[1]


def test_texts_of_a_column_are_those_of_the_rows(rows):
    odd = rows.select([3, 1, 38, 38])
    assert column_texts(rows, "source").tolist() == rows["source"][:]
    assert column_texts(odd, "target").tolist() == odd["target"][:]
    assert column_texts(rows.select([]), "source").tolist() == []


@pytest.mark.parametrize("different", [3, 40, 3000])
def test_a_sample_of_groups_has_the_lowest_keys_that_fit(different):
    keys = np.random.default_rng(different).integers(0, different, 1000).astype(np.uint64)
    for rows in (1, 10, 400):
        left, wanted = rows, set()
        for key in sorted(set(keys.tolist())):
            if (size := int((keys == key).sum())) <= left:
                left, wanted = left - size, wanted | {key}
        assert sample_keys(keys, rows).tolist() == [key in wanted for key in keys.tolist()]
    own = np.arange(0, 2 * different, 3, dtype=np.uint64)
    assert is_among(own, keys).tolist() == [key in set(keys.tolist()) for key in own.tolist()]
