"""Words that occur in like places get like vectors: a map. 词向量：出现在相似位置的字，向量也相似。

`python -m examples.word_vectors [OUTPUT_DIR]` trains Word2Vec's skip-gram on the 4,000 HSK sentences, a character of
Chinese at a time, and draws word_vectors.svg.
"""

import sys
from pathlib import Path

import numpy as np

from fun_transformer.embeddings import train_word2vec
from fun_transformer.training.data.built_in import read_hsk
from fun_transformer.visualization import plot_word_vectors

GROUPS = {
    "数字 numbers": "一二三四五六七八九十百两",
    "代词 pronouns": "我你他她们",
    "家人 family": "爸妈哥姐弟妹",
    "时间 time": "年月天号早晚",
    "食物 food": "饭菜茶水肉吃喝",
}


def main() -> None:
    folder, epochs = Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2] if len(sys.argv) > 2 else 40)
    sentences = [list(pair["zh"]) for pair in read_hsk()[0]["train"]]
    vectors = train_word2vec(sentences, "skip-gram", dimension=50, window=3, min_count=5, epochs=epochs)
    words = [word for group in GROUPS.values() for word in group if word in vectors]
    groups = [name for name, group in GROUPS.items() for word in group if word in vectors]
    for word in "三他爸":
        nearest = ", ".join(f"{other} {similarity:.2f}" for other, similarity in vectors.most_similar(word, topn=5))
        print(f"{word} is nearest to {nearest}")

    directions = vectors[words] / np.linalg.norm(vectors[words], axis=1, keepdims=True)
    similarity = directions @ directions.T  # (words, words), the cosine of each pair
    for name in GROUPS:
        inside = np.array([group == name for group in groups])
        within = similarity[np.ix_(inside, inside)][~np.eye(inside.sum(), dtype=bool)].mean()
        across = similarity[np.ix_(inside, ~inside)].mean()
        print(f"{name}: similarity {within:.2f} among themselves, {across:.2f} to the other groups")
    plot_word_vectors(words, directions, folder / "word_vectors.svg", groups)


if __name__ == "__main__":
    main()
