"""Argos Translate, which LibreTranslate is made of: a zip with a CTranslate2 folder and a SentencePiece model.

Our BPE becomes SentencePiece's: the same tokens, and the earlier a pair was merged, the higher its score. Only the
space before a text differs: ours begins texts with one unless they are Chinese or Japanese, SentencePiece all or none.
"""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..engines.ctranslate2_folder import QUANTIZATIONS, check_model, write_folder
from .formats import Answer, Format

LANGUAGES = re.compile(r"(?<![a-z])([a-z]{2,3})_([a-z]{2,3})(?![a-z])")
UNSPACED = ("zh", "zt", "ja")  # sources without a space before them
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
FILES = ("model.bin", "config.json", "*_vocabulary.json")
LAST = 10**6  # the rank of what no merge makes


class Argos(Format):
    """A package that `argospm install` and `argostranslate.package.install_from_path` take.

    The name of the file says the languages: zh_en.argosmodel.
    """

    quantizations = QUANTIZATIONS
    suffix = ".argosmodel"
    libraries = ("ctranslate2", "sentencepiece", "google.protobuf")
    extra = "argos"

    def check_name(self, output: Path) -> None:
        """Refuse files whose name does not say the languages.

        Raises:
            ValueError: It is such a one.
        """
        if not LANGUAGES.search(output.name):
            raise ValueError(f"-o {output} must name both languages: -o zh_en.argosmodel.")

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Refuse models that CTranslate2 cannot say, and vocabularies that SentencePiece cannot.

        Raises:
            ValueError: The model or its tokenizer is such a one.
        """
        check_model(model)
        sides: dict[str, Any] = getattr(tokenizer, "init_kwargs", {})
        kinds = (sides.get("source_type"), sides.get("target_type"))
        if kinds != ("bpe", "bpe") or getattr(tokenizer, "target_vocab_size", None):
            raise ValueError(
                f"--to argos needs one bpe vocabulary for both sides; this one is {kinds[0]} to {kinds[1]}."
            )
        if sides.get("lowercase", "none") != "none" or getattr(tokenizer, "languages", []):
            raise ValueError("--to argos takes models of one language a side that do not make letters small.")

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write the package."""
        self.check_name(output)
        source, target = LANGUAGES.findall(output.name)[0]
        metadata = {"package_version": "1.0", "argos_version": "1.10", "type": "translate"}
        metadata |= {"from_code": source, "from_name": source, "to_code": target, "to_name": target}
        top = f"translate-{source}_{target}-1_0"
        with TemporaryDirectory() as temporary, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as package:
            folder = Path(temporary)
            write_folder(model, tokenizer, folder, quantization)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps(config | {"add_source_eos": True}), encoding="utf-8")
            for file in (file for pattern in FILES for file in folder.glob(pattern)):
                package.write(file, f"{top}/model/{file.name}")
            package.writestr(f"{top}/metadata.json", json.dumps(metadata))
            package.writestr(f"{top}/sentencepiece.model", sentencepiece_model(tokenizer, source not in UNSPACED))

    def open(self, output: Path) -> Answer:
        """Return what answers texts as Argos Translate does, but with the penalty and the limits of the model."""
        import ctranslate2
        from sentencepiece import SentencePieceProcessor

        with TemporaryDirectory() as temporary:
            with zipfile.ZipFile(output) as package:
                package.extractall(temporary)
            (folder,) = Path(temporary).iterdir()
            translator = ctranslate2.Translator(str(folder / "model"))
            pieces = SentencePieceProcessor(model_proto=(folder / "sentencepiece.model").read_bytes())

        def answer(texts: Sequence[str], num_beams: int, max_new_tokens: int) -> list[str]:
            results = translator.translate_batch(
                [pieces.encode(text, out_type=str) for text in texts],
                max_batch_size=32,
                beam_size=num_beams,
                patience=2,
                max_decoding_length=max_new_tokens,
                min_decoding_length=0,
            )
            return [pieces.decode_pieces(result.hypotheses[0]).replace("▁", " ").strip() for result in results]

        return answer


def sentencepiece_model(tokenizer: PreTrainedTokenizerBase, has_space_before: bool) -> bytes:
    """Return our BPE as a SentencePiece model.

    Args:
        tokenizer: Of type bpe.
        has_space_before: Texts begin with a space.
    """
    from sentencepiece import sentencepiece_model_pb2

    fast: Any = tokenizer
    messages: Any = sentencepiece_model_pb2  # without types
    merges = json.loads(fast._tokenizer.to_str())["model"]["merges"]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair if isinstance(pair, list) else pair.split(" ")), rank)
    proto = messages.ModelProto()
    kinds = messages.ModelProto.SentencePiece
    special = set(tokenizer.all_special_tokens)
    for token in fast.convert_ids_to_tokens(list(range(len(fast)))):
        piece = proto.pieces.add(piece=token, type=kinds.NORMAL, score=-float(ranks.get(token, LAST)))
        if token in special:
            piece.type = kinds.UNKNOWN if token == tokenizer.unk_token else kinds.CONTROL
        elif BYTE.fullmatch(token):
            piece.type = kinds.BYTE
    trainer = proto.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(fast), True
    for name in ("unk", "bos", "eos", "pad"):
        setattr(trainer, f"{name}_id", getattr(tokenizer, f"{name}_token_id"))
        setattr(trainer, f"{name}_piece", getattr(tokenizer, f"{name}_token"))
    normalizer = proto.normalizer_spec
    normalizer.name, normalizer.add_dummy_prefix = "identity", has_space_before
    return proto.SerializeToString()
