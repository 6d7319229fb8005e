"""Many processes: what is measured holds for all of them; what is expected is arithmetic that can be checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_runs import write_digits_recipe

from benchmarks import scaling

LINE = {"seconds_per_step": 0.5, "megabytes_sent_per_step": 12.0, "seconds_to_reduce": 0.1}


def test_gradients_go_around_a_ring_twice():
    assert scaling.sent_bytes(1_000, 1) == 0
    assert scaling.sent_bytes(1_000, 2) == 4_000  # half of them there, the other half back
    assert scaling.sent_bytes(1_000, 8, 2) == 3_500


def test_what_travels_while_the_step_is_computed_costs_nothing():
    assert scaling.Expected(compute=3.0, reduce=2.0).efficiency == 1.0
    assert scaling.Expected(compute=3.0, reduce=5.0).efficiency == pytest.approx(0.5)


def test_a_step_takes_as_long_as_its_operations_and_bytes(tiny_config):
    config = tiny_config()
    few, many = (scaling.expect(config, gpus, tokens=1_000) for gpus in (8, 16))
    assert few.compute == many.compute and scaling.expect(config, 8, 2_000).compute == 2 * few.compute
    assert many.reduce / few.reduce == pytest.approx((15 / 16) / (7 / 8) * 9)  # the link between machines


def test_the_documented_table_is_the_one_of_the_script():
    documented = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    assert scaling.arithmetic() in documented


def test_the_share_is_that_of_n_times_one_process():
    found = [LINE | {"processes": n, "tokens_per_second": rate} for n, rate in ((1, 100.0), (4, 320.0))]
    assert "| 4 | 320 | 80% | 0.500 | 12 | 0.100 |" in scaling.table(found)
    assert "| 4 | 320 | not measured |" in scaling.table(found[1:])


@pytest.mark.slow
def test_two_processes_add_their_line_to_that_of_one(tmp_path):
    recipe, output = write_digits_recipe(tmp_path), tmp_path / "scaling.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    words = ["-m", "benchmarks.scaling", str(recipe), "--seconds=0.5", f"--output={output}"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command in ([sys.executable, *words], [sys.executable, *torchrun, *words]):
        subprocess.run(command, check=True, timeout=300, env=environment, cwd=Path(__file__).parents[1])
    one, two = json.loads(output.read_text())
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["megabytes_sent_per_step"] == 0 < two["megabytes_sent_per_step"]
    assert min(one["tokens_per_second"], two["tokens_per_second"]) > 0
