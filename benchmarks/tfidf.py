"""The baseline: logistic regression on the difference of the answers' TF-IDF vectors and of their log lengths."""

from __future__ import annotations

import numpy as np
from human_data import Pair
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


def differences(train: list[Pair], test: list[Pair]) -> list[float]:
    """The baseline's preference for `chosen` in each test pair, learned from `train` only.

    One regression for each source, which is a stronger baseline than a single one for the mix.
    """
    found: dict[int, float] = {}
    for source in {pair.source for pair in test}:
        at = [index for index, pair in enumerate(test) if pair.source == source]
        scores = _differences([pair for pair in train if pair.source == source], [test[index] for index in at])
        found.update(zip(at, scores, strict=True))
    return [found[index] for index in range(len(test))]


def _differences(train: list[Pair], test: list[Pair]) -> list[float]:
    vectorizer = TfidfVectorizer(min_df=2, ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([text for pair in train for text in (pair.chosen, pair.rejected)])

    def features(pairs: list[Pair]) -> csr_matrix:
        words = vectorizer.transform([pair.chosen for pair in pairs])
        words = words - vectorizer.transform([pair.rejected for pair in pairs])
        lengths: NDArray[np.float64] = np.array(
            [[np.log1p(len(pair.chosen)) - np.log1p(len(pair.rejected))] for pair in pairs]
        )
        return csr_matrix(hstack([words, csr_matrix(lengths)]))

    forward = features(train)
    both = vstack([forward, -forward])  # each pair in both orders, so that no order is preferred
    labels = np.repeat([1, 0], len(train))
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000).fit(both, labels)
    scores: list[float] = model.decision_function(features(test)).tolist()
    return scores
