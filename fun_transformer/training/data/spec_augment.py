"""SpecAugment: parts of a spectrogram are hidden, other ones each time (Park et al. 2019, arXiv:1904.08779).

Two bands of neighbouring frequencies and one stretch of time become 0, which is the mean of each frequency. A model
that cannot rely on any of them learns a few speakers less by heart.
"""

import numpy as np
from datasets import Dataset

from .rows import TokenRows

BANDS = 2
BAND = 0.2  # of the frequencies that a band may hide at most: the paper hides up to 27 of 80 ...
STRETCH = 0.15  # ... and up to 100 frames, but at most this part of a recording
LONGEST_STRETCH = 100  # frames


def hide_parts(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of a spectrogram, (frames, num_mel_bins), without two bands and a stretch of it."""
    hidden, (frames, bins) = features.copy(), features.shape
    for _ in range(BANDS):
        width = rng.integers(0, int(BAND * bins) + 1)
        first = rng.integers(0, bins - width + 1)
        hidden[:, first : first + width] = 0
    length = rng.integers(0, min(LONGEST_STRETCH, int(STRETCH * frames)) + 1)
    first = rng.integers(0, frames - length + 1)
    hidden[first : first + length] = 0
    return hidden


class HiddenPartsRows(TokenRows):
    """Rows of spectrograms of which each pass over the data hides other parts.

    Args:
        dataset: With `features`.
        seed: Decides, with the epoch and the number of a row, what is hidden.
    """

    def __init__(self, dataset: Dataset, seed: int):
        super().__init__(dataset)
        self.seed = seed

    def read(self, rows: np.ndarray, epoch: int) -> list[dict[str, np.ndarray]]:
        """Return rows as a pass over the data shows them.

        Args:
            rows: (batch,) their numbers.
            epoch: Number of the pass, from 0.
        """
        made = []
        for row in rows:
            rng = np.random.default_rng((self.seed, epoch, int(row)))
            made.append(self[row] | {"features": hide_parts(self[row]["features"], rng)})
        return made
