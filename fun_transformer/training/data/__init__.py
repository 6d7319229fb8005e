"""From files, the Hub or built-in data sets to batches of token ids."""
