"""From files to batches: read parallel text, check and clean its rows, tokenize them, cut them into batches.

`splits.load_splits` is the entrance. Imports go one way: `readers`, `caching` and `report`, then `features`,
`columns`, `headers`, `files`, `built_in` (with `built_in_files` and `formulas`) and `cleaning`, then `sources`,
`splits`, `tokenizing` and, of `sounds` and `pictures`, `media`; on the other side `rows`, then `fresh_rows` (with
`noise` and `bpe_dropout`), `spec_augment`, `batches` and `packing`.
"""
