"""Write what models make of texts: `python -m training.distill MODEL ... --sources FILE --output ROWS.jsonl`."""

import sys

from fun_transformer.training.distill import main

if __name__ == "__main__":
    sys.exit(main())
