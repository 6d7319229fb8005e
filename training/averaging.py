"""Write the mean of several models: `python -m training.averaging MODEL MODEL ... --output_dir MEAN`."""

import sys

from fun_transformer.training.model.averaging import main

if __name__ == "__main__":
    sys.exit(main())
