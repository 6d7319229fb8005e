"""The trainer imports, measures and trains where Python has less than on Linux."""

import subprocess
import sys
from pathlib import Path

import pytest

from fun_transformer.training.platform import available_cores, peak_process_memory

ROOT = Path(__file__).parents[1]

# The libraries find their own way on each system. Ours then finds neither what only Unix has nor what only Linux has.
WITHOUT_UNIX = """
import multiprocessing, os, signal, sys
import accelerate, datasets, evaluate, matplotlib.pyplot, sacrebleu, seqeval.metrics, sklearn.metrics
import torch.utils.tensorboard, tqdm, transformers.generation, transformers.pipelines
for module in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[module] = None
for name in ("sched_getaffinity", "fork", "getuid", "getloadavg"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
sys.platform = "win32"
"""


def run_script(code, folder):
    """Run code as a script in a process of its own that fails where the code does."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    environment = {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_memory_and_cores_are_plausible():
    assert available_cores() >= 1
    assert 10e6 < peak_process_memory() < 1e12


@pytest.mark.slow
def test_every_module_imports_and_a_run_trains_and_goes_on_without_what_only_unix_has(tmp_path):
    sources = [f"{row % 7} {row % 5} {row % 3}" for row in range(120)]
    (tmp_path / "a.src").write_text("\n".join(sources) + "\n", encoding="utf-8")
    (tmp_path / "a.tgt").write_text("\n".join(source[::-1] for source in sources) + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        """
model: {d_model: 16, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2,
        encoder_ffn_dim: 32, decoder_ffn_dim: 32}
tokenizer: {type: char, vocab_size: 40, min_frequency: 1}
data:
  train: {source: a.src, target: a.tgt}
training: {max_steps: 4, eval_steps: 2, save_steps: 2, batch_tokens: 256, warmup_steps: 2, report_to: []}
generation: {max_new_tokens: 8, eval_rows: 4, metrics: [exact]}
output_dir: run
""",
        encoding="utf-8",
    )
    code = """
if __name__ == "__main__":
    import importlib, pkgutil
    import fun_transformer.training as training
    for module in pkgutil.walk_packages(training.__path__, "fun_transformer.training."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from fun_transformer.training.platform import available_cores, keep_freed_memory, peak_process_memory
    keep_freed_memory()
    assert available_cores() == os.cpu_count() and 10e6 < peak_process_memory() < 1e12
    from fun_transformer.training.train import main
    assert main(["recipe.yaml"]) == 0
    assert main(["recipe.yaml", "--training.max_steps", "6", "--resume", "--allow_changes"]) == 0
    assert main(["recipe.yaml", "--dry-run", "--output_dir", "other"]) == 0
"""
    run_script(WITHOUT_UNIX + code, tmp_path)
    assert (tmp_path / "run" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_data_are_read_and_tokenized_by_processes_that_were_not_forked(tmp_path):
    for shard in range(2):
        rows = "".join(f'{{"source": "a {row}", "target": "b {row}"}}\n' for row in range(shard, 41_000, 2))
        (tmp_path / f"{shard}.jsonl").write_text(rows, encoding="utf-8")
    code = """
import multiprocess

if __name__ == "__main__":
    multiprocess.set_start_method("spawn")  # as on macOS and Windows
    from fun_transformer.training.data.splits import load_splits
    from fun_transformer.training.data.tokenizing import tokenize_splits
    from fun_transformer.training.recipe.arguments import DataArguments, SplitArguments
    from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer
    data = DataArguments(train=SplitArguments(dataset="*.jsonl"), clean=["control"])
    splits, _ = load_splits(data, seed=0)
    tokenizer = train_tokenizer(["a b 0123456789"], settings=TokenizerSettings(type="char"))
    splits, _ = tokenize_splits(splits, tokenizer, data)
    assert len(splits["train"]) == 40_000 and len(splits["train"][0]["input_ids"]) > 2
"""
    run_script(code, tmp_path)
