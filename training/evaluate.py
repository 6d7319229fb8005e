"""Score a trained model: `accelerate launch -m training.evaluate RUN`."""

import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == folder:  # run as a file: this file must not hide the library evaluate
    sys.path[0] = str(folder.parent)

from fun_transformer.training.evaluate import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
