"""Train a model: `accelerate launch -m training.train RECIPE.yaml`, or `accelerate launch training/train.py ...`."""

import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == folder:  # run as a file: evaluate.py beside it must not hide the library evaluate
    sys.path[0] = str(folder.parent)

from fun_transformer.training.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
