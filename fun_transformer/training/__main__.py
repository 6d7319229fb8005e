"""`accelerate launch -m fun_transformer.training RECIPE.yaml`: see `fun_transformer.training.train`."""

import sys

from .train import main

if __name__ == "__main__":
    sys.exit(main())
