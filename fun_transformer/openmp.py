"""Let the threads of a process wait for each other without burning a core that another program wants.

torch computes on several cores by OpenMP. Its threads wait for each other in a loop ("spin") before they sleep, which
is quick on a quiet machine. Beside another busy program one thread is now and then taken off its core, the others spin
in vain, and training loses most of its speed. A short spin gives much of it back (docs/training.md has the figures).

GNU's OpenMP reads how long to spin before torch is loaded, so this is set where a command begins, and never over what
the user has set. Standard library only: it must not load torch.
"""

import os
import sys
from pathlib import Path

SPIN_COUNT = 3000  # rounds; GNU's OpenMP takes 300,000 by default
LAUNCHERS = (("training", "train.py"), ("training", "evaluate.py"), ("examples", "demo.py"))
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by which a user says how threads wait


def shorten_spin() -> None:
    """Set a short spin, unless the user has set one, torch has been loaded, or there is a GPU to wait for."""
    is_set = any(name in os.environ for name in SETTINGS)
    if not is_set and "torch" not in sys.modules and not Path("/dev/nvidiactl").exists():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def is_command(argv: list[str], program: str) -> bool:
    """Tell whether a process is a command of the package, not a program or notebook that imports it.

    Args:
        argv: `sys.orig_argv`, the words that Python was started with.
        program: `sys.argv[0]`.
    """
    module = argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""
    is_launcher = Path(program).parts[-2:] in LAUNCHERS
    return is_launcher or Path(program).stem == "fun-transformer" or module.split(".")[0] == "fun_transformer"


if is_command(sys.orig_argv, sys.argv[0]):
    shorten_spin()
