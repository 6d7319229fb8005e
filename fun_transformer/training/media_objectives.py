"""Speech and pictures as sources: the rest of the encoder-decoder, and of the training, is that of texts.

| objective | source | target |
| --- | --- | --- |
| speech_to_text | a recording | what is said |
| image_to_text | a picture of a line | what is written |
"""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import DatasetDict

from ..frontends import output_lengths
from .data.batches import pad_labels
from .data.columns import BYTES
from .data.languages import corpora_of
from .data.media import READERS, SourceReader, describe_changes, make_features
from .data.report import RowReport, check_rows, good_rows
from .data.rows import TokenRows
from .objectives import Seq2Seq
from .recipe.arguments import DataArguments
from .recipe.base import starts_from_model
from .tables import register_objective


class FromFiles(Seq2Seq):
    """Write a text from the features of a file.

    Attributes:
        reader: Turns files into features; made by `read_sources`.
    """

    can_pack = False
    takes_noise = False
    options = frozenset()
    default_fields = {"norm_position": "pre"}  # with norms after each part the model does not begin to learn
    reader: SourceReader

    def unit(self) -> str:
        """Say what a source is measured in."""
        return "vectors"

    def config_fields(self):
        return {"source_modality": self.modality}

    def read_sources(self, config, arguments):
        reader = READERS[self.modality]
        config.source_modality = self.modality
        if not starts_from_model(arguments):
            self.reader = reader.build(config)
            return
        path = arguments.model["path"]
        try:
            self.reader = reader.load(path, config)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"model.path={path}: its preprocessor_config.json, which says how files are read, cannot be read "
                f"({str(error).splitlines()[0]}). Put back a whole copy."
            ) from error

    def save_files(self, folder: Path) -> None:
        self.reader.extractor.save_pretrained(folder)

    def texts(self, train):
        return {"texts": train["target"][:]}

    def encode(self, batch, tokenizer):
        return {"labels": tokenizer(text_target=batch["target"], return_attention_mask=False)["input_ids"]}

    def prepare_rows(self, splits: DatasetDict, tokenizer: Any, data: DataArguments) -> tuple[DatasetDict, RowReport]:
        """Add `features`, `frames`, `source_length` and `labels`; refuse or drop sources that cannot be read."""
        prepared, report = DatasetDict(), RowReport()
        for name, placed in splits.items():
            made = make_features(placed.select_columns(["source", BYTES]), self.reader, f"Reading {name}")
            labels = self.encode({"target": list(placed["target"])}, tokenizer)["labels"]
            lengths = self.reader.lengths(np.array(made["frames"]))  # (rows,)
            problems = np.array(made["problem"], dtype=object)
            too_long = (
                (lengths, data.max_source_tokens, f"source has more than {data.max_source_tokens} {self.unit()}"),
                (np.array(list(map(len, labels))), data.max_target_tokens, "target has too many tokens"),
            )
            for sizes, limit, problem in too_long:
                problems[(problems == "") & (sizes > limit)] = problem
            corpora = [str(corpus) for corpus in corpora_of(data, name)]
            dropped = check_rows(placed, problems, name, corpora, data.bad_rows)
            report.add(name, "read", len(placed), dropped)
            report.note(describe_changes(made, name))
            rows = placed.remove_columns(["place", BYTES])
            rows = datasets.concatenate_datasets([rows, made.select_columns(["features", "frames"])], axis=1)
            ids = datasets.List(datasets.Value("int32"))
            rows = rows.add_column("labels", labels, feature=ids)
            rows = rows.add_column("source_length", lengths.astype(np.int32), feature=datasets.Value("int32"))
            prepared[name] = good_rows(rows, problems)
        return prepared, report

    def collate(self, rows, tokenizer):
        return self.reader.collate(rows) | {"labels": pad_labels(rows)}

    def tokens(self, batch):
        frames = batch["attention_mask"].sum(1)  # (batch,)
        return int(output_lengths(self.reader.config, frames).sum()) + self.items(batch)

    def sizes(self, rows):
        return list(rows["source_length"])

    def inputs(self, rows, numbers, tokenizer) -> dict[str, torch.Tensor]:
        chosen = TokenRows(rows.select(numbers))
        return self.reader.collate([chosen[place] for place in range(len(chosen))])


@register_objective
class SpeechToText(FromFiles):
    """Write what is said in a recording (Dong et al. 2018, Speech-Transformer)."""

    name = "speech_to_text"
    modality = "speech"
    pipeline = "automatic-speech-recognition"
    usual_metrics = ("wer", "cer")

    def unit(self):
        return f"vectors of {10 * 2**self.reader.config.frontend_layers} ms"


@register_objective
class ImageToText(FromFiles):
    """Write what is written in a picture, as handwriting or as a formula (Deng et al. 2017, arXiv:1609.04938)."""

    name = "image_to_text"
    modality = "image"
    pipeline = "image-to-text"
    usual_metrics = ("exact", "cer")
