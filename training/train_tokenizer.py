"""Learn a vocabulary from raw text: `python -m training.train_tokenizer --output_dir tokenizer FILE ...`."""

import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == folder:  # run as a file: evaluate.py beside it must not hide the library evaluate
    sys.path[0] = str(folder.parent)

from fun_transformer.training.train_tokenizer import main  # noqa: E402

if __name__ == "__main__":
    main()
