"""Learn a vocabulary from raw text: `python -m training.train_tokenizer --output_dir tokenizer FILE ...`."""

from fun_transformer.training.train_tokenizer import main

if __name__ == "__main__":
    main()
