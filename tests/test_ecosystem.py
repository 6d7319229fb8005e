"""What people do with a model beside calling it: Trainer, PEFT, quantization, compilation, export, devices."""

import copy
import re
import socket
from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)
from transformers.utils import is_flash_attn_2_available, is_kernels_available

import fun_transformer
from fun_transformer import (
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    Seq2SeqRNNConfig,
    Seq2SeqRNNForConditionalGeneration,
)


def close(actual, expected, atol=1e-5):
    assert_close(actual, expected, atol=atol, rtol=1e-4)


@pytest.fixture
def seq2seq_batch(tiny_model, tiny_batch):
    """The sentence pairs with the decoder's input in place of the labels."""
    labels = tiny_batch.pop("labels")
    return {**tiny_batch, "decoder_input_ids": tiny_model().prepare_decoder_input_ids_from_labels(labels)}


MODELS = [
    getattr(fun_transformer, name) for name in fun_transformer.__all__ if re.search("Transformer.*(Model|For)", name)
]
MODELS.remove(fun_transformer.FunTransformerPreTrainedModel)
LAYERS_ON_DISK = {"lm_head": "cpu"} | {
    f"model.{stack}.{part}": "disk" if part == "layers" else "cpu"
    for stack in ("encoder", "decoder")
    for part in ("embed_tokens", "embed_positions", "layers", "layer_norm")
}


@torch.no_grad()
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_flex_attention_equals_eager(norm_position, tiny_model, seq2seq_batch):
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes on a CPU
        actual = tiny_model("flex_attention", norm_position=norm_position)(**seq2seq_batch)
    close(actual.logits, tiny_model("eager", norm_position=norm_position)(**seq2seq_batch).logits)


UNUSABLE = {
    "flash_attention_2": "FlashAttention2 .* installed",
    "flash_attention_3": "FlashAttention3 .* installed",
    "someone/some-kernel": ".*kernels.* not installed",
    "spda": "Did you mean sdpa[?]$",
    "flash": "",
    "": "",
    3: "",
}


@pytest.mark.skipif(is_flash_attn_2_available() or is_kernels_available(), reason="it can run here")
@pytest.mark.parametrize(("name", "message"), UNUSABLE.items(), ids=str)
def test_a_kernel_that_cannot_run_is_refused_with_those_that_can(name, message, tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    doors = [
        lambda: type(model).from_pretrained(tmp_path, attn_implementation=name),
        lambda: AutoModelForSeq2SeqLM.from_pretrained(tmp_path, attn_implementation=name),
        lambda: AutoModelForSeq2SeqLM.from_config(copy.deepcopy(model.config), attn_implementation=name),
        lambda: model.set_attn_implementation(name),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=f"here. Choose one of eager, sdpa, flex_attention. ?{message}") as error:
            door()
        assert str(error.value).startswith(f'Specified `attn_implementation="{name}"` is not supported')
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["sdpa", "flex_attention", "flash_attention_2"])
def test_an_rnn_has_no_fused_kernel_and_says_so(name):
    config = Seq2SeqRNNConfig(vocab_size=24, d_model=16)
    model = AutoModelForSeq2SeqLM.from_config(config)
    assert model.config._attn_implementation == "eager"
    message = f"{name}.* is not supported here. Choose one of eager. A seq2seq_rnn has no such kernel"
    with pytest.raises(ValueError, match=message):
        model.set_attn_implementation(name)
    with pytest.raises(ValueError, match=message):
        AutoModelForSeq2SeqLM.from_config(config, attn_implementation=name)


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "adapters"])
def test_flex_attention_says_that_it_does_not_train_on_a_cpu(frozen, tiny_model, tiny_batch):
    model = tiny_model("flex_attention").train()
    if frozen:
        model.requires_grad_(False)
        model.get_decoder().layers[0].encoder_attn.k_proj.weight.requires_grad_(True)
    with torch.compiler.set_stance("force_eager"):
        with pytest.raises(ValueError, match=r"no gradients on a CPU. Choose one of eager, sdpa"):
            model(**tiny_batch)
        with torch.no_grad():
            assert model(**tiny_batch).loss.isfinite()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"position_embedding_type": "learned", "norm_position": "pre"}])
def test_it_compiles_as_one_graph(fields, tiny_model, seq2seq_batch):
    model = tiny_model(**fields)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(**seq2seq_batch, use_cache=False).logits, model(**seq2seq_batch).logits)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"position_embedding_type": "learned", "norm_position": "pre"}])
def test_an_exported_program_gives_the_same_logits_for_other_lengths(fields, tiny_model, seq2seq_batch):
    model = tiny_model(**fields)
    batch, source, target = (torch.export.Dim(name, min=2, max=20) for name in ("batch", "source", "target"))
    shapes = {"input_ids": (batch, source), "attention_mask": (batch, source), "decoder_input_ids": (batch, target)}
    program = torch.export.export(
        model, (), {**seq2seq_batch, "use_cache": False}, dynamic_shapes={**shapes, "use_cache": None}, strict=False
    )
    shorter = {name: tensor[:2, :4] for name, tensor in seq2seq_batch.items()}
    for inputs in (seq2seq_batch, shorter):
        close(program.module()(**inputs, use_cache=False).logits, model(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("device_map", ["cpu", "auto", LAYERS_ON_DISK], ids=["cpu", "auto", "disk"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_a_device_map_changes_nothing(device_map, norm_position, tiny_model, seq2seq_batch, tmp_path):
    model = tiny_model(norm_position=norm_position)
    model.save_pretrained(tmp_path / "model")
    loaded = FunTransformerForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    there = {name: tensor.to(loaded.device) for name, tensor in seq2seq_batch.items()}
    close(loaded(**there).logits.cpu(), model(**seq2seq_batch).logits)


@torch.no_grad()
def test_the_encoder_works_alone_and_its_output_can_be_given(tiny_model, seq2seq_batch):
    model = tiny_model()
    expected = model(**seq2seq_batch)
    source = {name: seq2seq_batch.pop(name) for name in ("input_ids", "attention_mask")}
    encoded = model.get_encoder()(**source)
    close(encoded.last_hidden_state, expected.encoder_last_hidden_state)
    given = {"encoder_outputs": encoded, "attention_mask": source["attention_mask"]}
    close(model(**given, **seq2seq_batch).logits, expected.logits)
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert torch.equal(model.generate(**given, **options), model.generate(**source, **options))


@pytest.mark.parametrize("kind", ["tp", "fsdp"])
@pytest.mark.parametrize("head", MODELS, ids=lambda head: head.__name__)
def test_parallel_plans_name_modules_that_exist(head, kind, tiny_config):
    model = head(tiny_config())
    plan = getattr(model, f"{kind}_plan")
    names = {re.sub(r"\.\d+", ".*", name) for name, _ in model.named_modules()}
    layers = {name for name in names if name.endswith("layers.*")}
    if kind == "fsdp":
        assert layers <= set(plan)  # the library's own entries for other models match nothing, which it ignores
    else:
        assert set(plan) <= names
        linear = {name for name in names if re.search(r"layers\.\*.*(_proj|fc[12])$", name)}
        assert linear <= set(plan)


RUN_ON_TWO = """
import sys, torch
from transformers.distributed import DistributedConfig
from fun_transformer import FunTransformerForConditionalGeneration
folder, size = sys.argv[1:]
batch, expected, gradient = torch.load(folder + "/expected.pt")
config = DistributedConfig(**{size: 2})
model = FunTransformerForConditionalGeneration.from_pretrained(folder, distributed_config=config).eval()
weight = model.model.decoder.layers[0].encoder_attn.q_proj.weight
assert weight.to_local().numel() * 2 == weight.numel(), "it is not split"
loss = model(**batch).loss
loss.backward()
torch.testing.assert_close(loss, expected)
torch.testing.assert_close(weight.grad.full_tensor(), gradient)
output = model.train()(**batch)
output.loss.backward()
assert output.loss.isfinite() and not hasattr(output, "logits")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tp_size", "fsdp_size"])
def test_two_processes_share_one_model(size, children, tiny_model, tiny_batch, tmp_path):
    model = tiny_model(vocab_size=24)
    loss = model(**tiny_batch).loss
    loss.backward()
    model.save_pretrained(tmp_path)
    gradient = model.model.decoder.layers[0].encoder_attn.q_proj.weight.grad
    torch.save((tiny_batch, loss.detach(), gradient), tmp_path / "expected.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        children.start("-c", RUN_ON_TWO, tmp_path, size, RANK=rank, LOCAL_RANK=rank, CUDA_VISIBLE_DEVICES="", **common)
        for rank in ("0", "1")
    ]
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.error for rank in ranks]


@torch.no_grad()
@pytest.mark.parametrize("depths", [(1, 4), (4, 1)])
def test_stacks_of_different_depth_generate_what_they_score(depths, tiny_model, seq2seq_batch):
    model = tiny_model(encoder_layers=depths[0], decoder_layers=depths[1])
    del seq2seq_batch["decoder_input_ids"]
    ids = model.generate(**seq2seq_batch, max_new_tokens=6, min_new_tokens=6)
    logits = model(**seq2seq_batch, decoder_input_ids=ids[:, :-1]).logits
    logits[..., model.config.eos_token_id] = -torch.inf
    assert torch.equal(logits.argmax(-1), ids[:, 1:])


@pytest.fixture
def tokenizer():
    """Characters as tokens."""
    from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

    return train_tokenizer(["abcdefgh"], settings=TokenizerSettings(type="char", min_frequency=1))


@pytest.fixture
def rows(tokenizer):
    """Words of letters, and the same words backwards: a list of {"input_ids", "attention_mask", "labels"}."""
    words = ["".join(letters)[: 2 + i % 3] for i, letters in enumerate(product("abcdefgh", repeat=4)) if i % 128 == 3]
    return [dict(tokenizer(word, text_target=word[::-1])) for word in words]


@pytest.fixture
def trainer(tiny_config, tokenizer, rows, tmp_path):
    """A function from training arguments to a Seq2SeqTrainer of a tiny model that writes words backwards."""

    def build(compute_metrics=None, **arguments):
        torch.manual_seed(0)
        model = FunTransformerForConditionalGeneration(tiny_config(vocab_size=len(tokenizer), dropout=0.0))
        defaults = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "seed": 0}
        return Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(output_dir=str(tmp_path / "trainer"), **{**defaults, **arguments}),
            train_dataset=rows,
            eval_dataset=rows[:6],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )

    return build


@pytest.mark.slow
@pytest.mark.parametrize("label_smoothing_factor", [0.0, 0.1])
def test_gradient_accumulation_logs_the_loss_of_the_whole_batch(label_smoothing_factor, trainer):
    """8 rows at once, and 2 rows 4 times: the same loss and the same weights (Marian logs it four times too high)."""
    logged, weights = [], []
    for rows_at_once, steps in ((8, 1), (2, 4)):
        run = trainer(
            per_device_train_batch_size=rows_at_once,
            gradient_accumulation_steps=steps,
            label_smoothing_factor=label_smoothing_factor,
            max_steps=2,
            logging_steps=1,
            learning_rate=1e-2,
            optim="sgd",  # a bias of keys has no gradient but rounding errors, which Adam makes large
        )
        run.train()
        logged.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
        weights.append(run.model.state_dict())
    assert_close(logged[0], logged[1], atol=2e-4, rtol=0)  # the log is rounded
    close(weights[0], weights[1])


HEADS_WITH_A_LOSS = [head for head in MODELS if "For" in head.__name__] + [Seq2SeqRNNForConditionalGeneration]
EVERY_LOSS = pytest.mark.parametrize("head", HEADS_WITH_A_LOSS, ids=lambda head: head.__name__)


@pytest.fixture
def build_plain(tiny_config):
    """A function from a head to a tiny model without dropout and label smoothing, in training mode."""

    def build(head):
        torch.manual_seed(0)
        config = tiny_config(dropout=0.0, label_smoothing=0.0, num_labels=3)
        if head is Seq2SeqRNNForConditionalGeneration:
            config = Seq2SeqRNNConfig(vocab_size=24, d_model=16, dropout=0.0, label_smoothing=0.0)
        return head(config).train()

    return build


@pytest.fixture
def train_a_step(build_plain, tmp_path):
    """A function from a head, rows and training arguments to its Trainer, after one step of rows in their order."""

    def train(head, rows, trainer_class=Trainer, compute_loss_func=None, **arguments):
        settings = {"max_steps": 1, "logging_steps": 1, "train_sampling_strategy": "sequential", "optim": "sgd"}
        settings |= {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True} | arguments
        run = trainer_class(
            model=build_plain(head),
            args=TrainingArguments(output_dir=str(tmp_path / "trainer"), learning_rate=0.1, **settings),
            train_dataset=rows,
            compute_loss_func=compute_loss_func,
        )
        run.train()
        return run

    return train


def rows_for(head, padding):
    """8 texts, of 7 tokens and of 3 in turn, with labels for a head; `padding` fills up those of tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 23, (8, 7), generator=generator)
    ids[1::2, 3:] = 0
    labels = ids.clone()
    if "Token" in head.__name__:
        labels = labels % 3
    labels[1::2, 3:] = padding
    if "Sequence" in head.__name__:
        labels = ids[:, 0] % 3
    return [dict(zip(("input_ids", "attention_mask", "labels"), row)) for row in zip(ids, (ids > 0).long(), labels)]


@EVERY_LOSS
def test_a_trainers_loss_is_the_mean_over_labels_however_they_are_padded_and_accumulated(
    head, build_plain, train_a_step
):
    """With labels padded by `pad_token_id` the loss was too small by the padding's share, and the gradients too."""
    columns = {name: torch.stack([row[name] for row in rows_for(head, -100)]) for name in rows_for(head, -100)[0]}
    expected = build_plain(head)(**columns).loss.item()
    padding = -100 if "Classification" in head.__name__ else 0
    whole = train_a_step(head, rows_for(head, -100), per_device_train_batch_size=8)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    in_parts = train_a_step(head, rows_for(head, padding), **parts)
    for run in (whole, in_parts):
        assert run.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-3)  # the log is rounded
    close(in_parts.model.state_dict(), whole.model.state_dict())


class LossOfOnesOwn(Trainer):
    """Reads the logits of a training step, as much code for Trainer does."""

    options: dict = {}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs, **self.options)
        logits, labels = outputs.logits.flatten(0, 1), inputs["labels"].flatten()
        return nn.functional.cross_entropy(logits, labels)


class LossOfLogitsAskedFor(LossOfOnesOwn):
    options = {"skip_logits": False}


SEQ2SEQ_HEADS = [FunTransformerForConditionalGeneration, Seq2SeqRNNForConditionalGeneration]


@pytest.mark.parametrize("head", SEQ2SEQ_HEADS)
def test_a_loss_of_ones_own_under_a_trainer_is_told_how_to_get_logits(head, train_a_step):
    rows = rows_for(head, -100)
    with pytest.raises(AttributeError, match="skip_logits=False"):
        train_a_step(head, rows, LossOfOnesOwn)
    expected = train_a_step(head, rows)
    found = train_a_step(head, rows, LossOfLogitsAskedFor)
    close(found.model.state_dict(), expected.model.state_dict())


@pytest.mark.parametrize("head", SEQ2SEQ_HEADS)
def test_a_compute_loss_func_gets_logits(head, train_a_step):
    def loss_of(outputs, labels, num_items_in_batch):
        logits = outputs.logits.flatten(0, 1)
        return nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch

    rows = rows_for(head, -100)  # the Trainer takes the labels out, so the decoder's input has to be there
    for row in rows:
        row["decoder_input_ids"] = nn.functional.pad(row["labels"][:-1], (1, 0), value=1).clamp(min=0)
    found = train_a_step(head, rows, compute_loss_func=loss_of)
    close(found.model.state_dict(), train_a_step(head, rows).model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("head", [FunTransformerForConditionalGeneration, FunTransformerForCausalLM])
def test_a_compiled_loss_of_ones_own_is_told_too(head, train_a_step):
    rows = rows_for(head, -100)
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    with pytest.raises(AttributeError, match="skip_logits=False"):
        train_a_step(head, rows, LossOfOnesOwn, **compiled)
    train_a_step(head, rows, LossOfLogitsAskedFor, **compiled)


@pytest.fixture
def process_group(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"find_unused_parameters": True}], ids=str)
@pytest.mark.parametrize("head", SEQ2SEQ_HEADS)
def test_logits_are_told_of_and_given_under_ddp(head, options, process_group, build_plain, tiny_batch):
    alone = build_plain(head)
    alone(**tiny_batch).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in alone.named_parameters()}
    alone.zero_grad()
    parallel = nn.parallel.DistributedDataParallel(alone, **options)
    with pytest.raises(AttributeError, match="skip_logits=False"):
        _ = parallel(**tiny_batch).logits
    logits = parallel(**tiny_batch, skip_logits=False).logits
    nn.functional.cross_entropy(logits.flatten(0, 1), tiny_batch["labels"].flatten()).backward()
    close({name: parameter.grad for name, parameter in alone.named_parameters()}, expected)
    del parallel  # before its group goes


@pytest.mark.slow
def test_the_trainer_of_transformers_trains_generates_and_saves(trainer, tokenizer, rows, tmp_path):
    def exact(prediction):
        texts, labels = (
            tokenizer.batch_decode(ids.clip(min=0), skip_special_tokens=True)
            for ids in (prediction.predictions, prediction.label_ids)
        )
        return {"exact": sum(text == label for text, label in zip(texts, labels)) / len(texts)}

    run = trainer(
        exact,
        num_train_epochs=30,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        predict_with_generate=True,
        generation_max_length=8,
        generation_num_beams=2,
        per_device_eval_batch_size=4,
    )
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_exact"] > 0.8 > before["eval_exact"]
    run.save_model(str(tmp_path / "saved"))
    loaded = FunTransformerForConditionalGeneration.from_pretrained(tmp_path / "saved")
    inputs = tokenizer(["abc", "hgfe"], return_tensors="pt", padding=True)
    close(loaded.generate(**inputs, max_length=8), run.model.generate(**inputs, max_length=8))


def test_lora_trains_merges_and_gives_the_same_logits(tiny_model, tiny_batch):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj", "v_proj", "fc1"])
    model = peft.get_peft_model(tiny_model(), config).train()
    frozen = copy.deepcopy(model.base_model.model.lm_head.weight)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    losses = []
    for _ in range(3):
        loss = model(**tiny_batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] != losses[-1]
    with torch.no_grad():
        expected = model.eval()(**tiny_batch).logits
        merged = model.merge_and_unload()
        assert isinstance(merged, FunTransformerForConditionalGeneration)
        close(merged(**tiny_batch).logits, expected)
    assert torch.equal(merged.lm_head.weight, frozen)


@torch.no_grad()
def test_int8_weights_of_torchao_load_and_stay_near(tiny_model, seq2seq_batch, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    model = tiny_model(d_model=64, encoder_ffn_dim=96, decoder_ffn_dim=96)
    model.save_pretrained(tmp_path)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig())
    )
    assert "Int8Tensor" in type(loaded.model.encoder.layers[0].self_attn.q_proj.weight).__name__
    difference = (loaded(**seq2seq_batch).logits - model(**seq2seq_batch).logits).abs().max()
    assert 0 < difference < 0.2
    assert loaded.generate(**seq2seq_batch, max_new_tokens=3).shape[0] == 3


@torch.no_grad()
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_bitsandbytes_load_and_stay_near(bits, tiny_model, seq2seq_batch, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    model = tiny_model(d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128)
    model.save_pretrained(tmp_path)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True}), device_map="cpu"
    )
    kind = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit}[bits]
    assert isinstance(loaded.model.encoder.layers[0].self_attn.q_proj, kind)
    logits = loaded(**seq2seq_batch).logits.float()
    assert nn.functional.cosine_similarity(logits.flatten(), model(**seq2seq_batch).logits.flatten(), dim=0) > 0.95


def test_shifted_labels_replace_labels_in_the_causal_loss(tiny_config):
    model = FunTransformerForCausalLM(tiny_config()).eval()
    ids, other = torch.randint(3, 23, (2, 3, 7))
    shifted = nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    expected = model(ids, labels=ids).loss
    assert_close(model(ids, shift_labels=shifted).loss, expected)
    assert_close(model(ids, labels=other, shift_labels=shifted).loss, expected)
