"""A folder of CTranslate2 with the interface of an encoder-decoder of transformers: what pipelines need of it.

`generate` takes ids and returns ids, and the words of transformers for what both can do. CTranslate2 itself takes and
returns tokens as strings. Reading given targets (`forward`) goes through it as well, so that scores and alignments of
our pipelines are those of the model that answers, its quantization included.
"""

import copy
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import Seq2SeqLMOutput

from ..configuration_fun_transformer import FunTransformerConfig
from ..pipeline_options import ruling_params
from ..pipeline_workers import MOST_WORKERS
from .ctranslate2_folder import MODEL_TYPE, check_model, longest_text, read_vocabularies, write_folder
from .ctranslate2_search import Search, check_generation, check_pipeline_options, rename_fallback, spell_prefixes

DTYPES = ("float32", "float16", "bfloat16")
IMPOSSIBLE = -1e4  # a logit
# Of `from_pretrained`, for downloads.
OF_HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class CTranslate2Config(FunTransformerConfig):
    """Our config and CTranslate2's in one file: its entries are the last ones.

    Args:
        quantization: Of the weights; None for float32.
        layer_norm_epsilon: Our `layer_norm_eps`.
        unk_token, bos_token, eos_token, decoder_start_token: Tokens that CTranslate2 looks for.
    """

    model_type = MODEL_TYPE

    quantization: str | None = None
    layer_norm_epsilon: float | None = None
    unk_token: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    decoder_start_token: str | None = None


class CTranslate2Model(PreTrainedModel):
    """A Transformer that CTranslate2 computes.

    `AutoModelForSeq2SeqLM.from_pretrained(folder)` loads one, as does `from_pretrained` here. It has no weights that
    torch could see, and is not trained. Threads may share it.
    """

    config_class = CTranslate2Config
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: CTranslate2Config, folder: Path, compute_type: str = "default"):
        super().__init__(config)
        self.folder, self.compute_type = folder, compute_type
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # says on which device the inputs are
        self.generation_config = GenerationConfig.from_pretrained(folder)
        self.source_tokens, self.target_tokens = read_vocabularies(folder)
        self.target_ids = {token: number for number, token in enumerate(self.target_tokens)}
        self.temporary: TemporaryDirectory | None = None
        self.translator = self._open()

    @classmethod
    def can_generate(cls) -> bool:
        """Say that it generates; transformers would look for its own mixin."""
        return True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, output_loading_info=False, **kwargs):
        """Load a folder that `fun-transformer export --to ct2` wrote.

        Args:
            pretrained_model_name_or_path: The folder, or its name on the Hub.
            args: None is known.
            config: Its config, where it has been read.
            output_loading_info: Return which weights are missing, too: none.
            kwargs: `dtype`, to compute in float32, float16 or bfloat16 instead of what the folder has; and those of
                transformers that say where on the Hub to look.

        Raises:
            ImportError: CTranslate2 is not installed.
            ValueError: It cannot load the folder.
        """
        hub = {name: kwargs[name] for name in OF_HUB if kwargs.get(name) is not None}
        name = str(pretrained_model_name_or_path)
        folder = Path(name if Path(name).is_dir() else snapshot_download(name, **hub))
        if kwargs.get("device_map") is not None:
            raise ValueError(f"device_map={kwargs['device_map']!r} is not for CTranslate2. Give device=... instead.")
        dtype = str(kwargs.get("dtype") or kwargs.get("torch_dtype") or "auto").removeprefix("torch.")
        if dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype={dtype} is unknown to CTranslate2. Choose one of {', '.join(DTYPES)}.")
        model = cls(config or AutoConfig.from_pretrained(folder), folder, "default" if dtype == "auto" else dtype)
        report = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
        return (model, report) if output_loading_info else model

    @classmethod
    def from_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "CTranslate2Model":
        """Convert a model in a temporary folder, which goes when it is no longer needed.

        Raises:
            ImportError: CTranslate2 is not installed.
            ValueError: It cannot compute the model.
        """
        check_installed()
        check_model(model)
        check_generation(model.generation_config)
        temporary = TemporaryDirectory(prefix="ctranslate2-", ignore_cleanup_errors=True)
        folder = Path(temporary.name)
        write_folder(model, tokenizer, folder)
        converted = cls.from_pretrained(folder)
        converted.temporary = temporary
        return converted.to(model.device)

    def _open(self) -> Any:
        """Return CTranslate2's model on the device that inputs are on."""
        check_installed()
        import ctranslate2

        device = self.place.device
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f'CTranslate2 computes on cpu and cuda, not on {device}. Give device="cpu".')
        # Batches of a pipeline side by side on a thread each need less CPU time than each on all threads.
        threads = torch.get_num_threads()
        workers = min(threads, MOST_WORKERS) if device.type == "cpu" else 1
        try:
            return ctranslate2.Translator(
                str(self.folder),
                device.type,
                device_index=device.index or 0,
                compute_type=self.compute_type,
                inter_threads=workers,
                intra_threads=threads // workers,
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"CTranslate2 cannot load {self.folder} on {device}: {error}") from error
        finally:
            torch.set_num_threads(threads)  # CTranslate2 sets the number of OpenMP, which is torch's too

    def to(self, *args, **kwargs):
        """Move to a device."""
        before = self.place.device
        super().to(*args, **kwargs)
        if self.place.device != before:
            self.translator = self._open()
        return self

    def __deepcopy__(self, memo):
        """Return a model that shares the weights: CTranslate2's have one owner."""
        other = copy.copy(self)
        other._parameters = dict(self._parameters)
        return other

    def set_attn_implementation(self, *args, **kwargs):
        """Do nothing: CTranslate2 has one attention, which returns weights when asked."""

    def check_pipeline_options(self, options: dict[str, Any]) -> None:
        """Refuse options of our pipelines that need another search; they ask before any text is answered.

        Raises:
            ValueError: Naming the first one.
        """
        check_pipeline_options(options)

    def fallback_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a guard's second try in the words of `generate`."""
        return rename_fallback(options)

    def save_pretrained(self, save_directory, **kwargs):
        """Copy the folder."""
        shutil.copytree(self.folder, save_directory, dirs_exist_ok=True)

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: list | None = None,
        **params: Any,
    ) -> torch.Tensor:
        """Search for outputs, as `generate` of transformers does.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            generation_config: Instead of the model's own.
            logits_processor: None but that of a prefix (decoding/prefix.py).
            params: Those of transformers that CTranslate2 has too, see ctranslate2_search.py.

        Returns:
            (batch * num_return_sequences, 1 + target_len), beginning with the start token, padded at the end.

        Raises:
            ValueError: CTranslate2 cannot do what is asked for.
        """
        if generation_config is not None:
            params["generation_config"] = generation_config
        ruling = ruling_params(params, {}, self.generation_config)
        ruling.pop("generation_config", None)
        search = Search.of(ruling, longest_text(self.config))
        sources = self._sources(input_ids, attention_mask)
        forced = ruling.get("forced_bos_token_id")
        beginnings = [[] if forced is None else [forced] for _ in sources]
        if logits_processor:
            beginnings = spell_prefixes(self._next_logits(sources), beginnings, logits_processor)
        prefixes = [[self.target_tokens[number] for number in ids] for ids in beginnings]
        rows = []
        for source, result in zip(sources, search.run(self.translator, sources, prefixes), strict=True):
            end = [self.eos_id] if self._is_empty(source) else []  # CTranslate2 leaves it out there
            rows += [[*(self.target_ids[token] for token in tokens), *end] for tokens in result.hypotheses]
        start, padding = self.start_id, self.generation_config.pad_token_id
        width = max(map(len, rows))
        padded = [[start, *row, *[padding] * (width - len(row))] for row in rows]
        return torch.tensor(padded, device=input_ids.device)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        output_attentions: bool = False,
        use_cache: bool = False,
    ) -> Seq2SeqLMOutput:
        """Read targets that are given.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len), beginning with the start token.
            output_attentions: Return attention weights.
            use_cache: Not looked at.

        Returns:
            `logits` (batch, target_len, vocab_size), 0 after the end of a text, and certain of that end for an empty
            source, to which CTranslate2 answers nothing; `cross_attentions`, of the layer where alignments are read
            alone, the mean of its heads: (batch, 1, target_len, source_len).
        """
        if decoder_input_ids is None or bool((decoder_input_ids[:, 0] != self.start_id).any()):
            raise ValueError(f"decoder_input_ids must be there, and begin with the start token {self.start_id}.")
        sources, (batch, length) = self._sources(input_ids, attention_mask), decoder_input_ids.shape
        targets = [row_until(row, self.eos_id) for row in decoder_input_ids[:, 1:].tolist()]
        results = self.translator.translate_batch(
            sources,
            [[self.target_tokens[number] for number in row] for row in targets],
            beam_size=1,
            max_decoding_length=length,
            min_decoding_length=0,
            max_input_length=0,
            return_logits_vocab=True,
            return_attention=output_attentions,
            return_end_token=True,
        )
        logits = torch.zeros(batch, length, self.config.decoder_vocab_size)
        weights = torch.zeros(batch, 1, length, input_ids.shape[1])
        is_source = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        for row, result in enumerate(results):
            if self._is_empty(sources[row]):
                logits[row] = self._end_is_certain()
                continue
            steps = [torch.from_numpy(numpy.array(step)) for step in result.logits[0][:length]]
            logits[row, : len(steps)] = torch.stack(steps).float()
            if output_attentions:
                seen = torch.tensor(result.attention[0][:length])  # (steps, tokens of the source)
                places = is_source[row].nonzero()[:, 0].cpu()
                weights[row, 0, : len(seen), places] = seen
        device = input_ids.device
        attentions = (weights.to(device),) if output_attentions else None
        return Seq2SeqLMOutput(logits=logits.to(device), cross_attentions=attentions)

    @property
    def start_id(self) -> int:
        """Return the id of the token that the decoder begins with."""
        return self.target_ids[self.config.decoder_start_token]

    @property
    def eos_id(self) -> int:
        """Return the id of the token that ends a text."""
        return self.target_ids[self.config.eos_token]

    def _is_empty(self, source: list[str]) -> bool:
        """Tell whether a source has no token but the end: CTranslate2 does not run the model for it."""
        return source in ([], [self.config.eos_token])

    def _end_is_certain(self) -> torch.Tensor:
        """Return logits (vocab_size) of the end of a text, log p = 0."""
        logits = torch.full((self.config.decoder_vocab_size,), IMPOSSIBLE)
        logits[self.eos_id] = 0.0
        return logits

    def _sources(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> list[list[str]]:
        """Return the tokens of each source, without padding.

        Raises:
            ValueError: One has more than there are positions.
        """
        rows = input_ids.tolist()
        if attention_mask is not None:
            masks = attention_mask.tolist()
            rows = [[number for number, keep in zip(*pair) if keep] for pair in zip(rows, masks)]
        longest = longest_text(self.config)
        if (length := max(map(len, rows))) > longest:
            raise ValueError(
                f"A text of {length} tokens is longer than the {longest} that this folder has positions for. "
                'Shorten it, or split it: long_text="split" or "sentences".'
            )
        return [[self.source_tokens[number] for number in row] for row in rows]

    def _next_logits(self, sources: list[list[str]]) -> Any:
        """Return a function from (row, ids so far) to the logits (vocab_size) of the token that follows."""

        def next_logits(row: int, ids: list[int]) -> numpy.ndarray:
            if self._is_empty(sources[row]):
                return self._end_is_certain().numpy()
            (result,) = self.translator.translate_batch(
                [sources[row]],
                [[self.target_tokens[number] for number in ids]],
                beam_size=1,
                max_decoding_length=len(ids) + 1,
                min_decoding_length=0,
                max_input_length=0,
                return_logits_vocab=True,
            )
            return numpy.array(result.logits[0][-1])

        return next_logits


def row_until(ids: list[int], eos_id: int) -> list[int]:
    """Return ids up to the end of the text."""
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def check_installed() -> None:
    """Refuse to go on without CTranslate2.

    Raises:
        ImportError: Saying what to install.
    """
    if find_spec("ctranslate2") is None:
        raise ImportError("CTranslate2 is not installed: pip install 'fun-transformer[ct2]'", name="ctranslate2")
