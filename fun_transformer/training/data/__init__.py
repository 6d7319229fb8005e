"""From files to batches: read parallel text, check and clean its rows, tokenize them, cut them into batches.

`splits.load_splits` is the entrance. Imports go one way: `readers`, `caching` and `report`, then `features`,
`columns`, `headers`, `files`, `built_in` and `cleaning`, then `sources`, `splits` and `tokenizing`; on the other side
`rows`, then `fresh_rows` (with `noise` and `bpe_dropout`), `batches` and `packing`.
"""
