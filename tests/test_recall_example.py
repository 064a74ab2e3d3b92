"""The example of a model of one's own: what it asks, and that it learns."""

import keras
import pytest
import recall


def test_the_value_of_the_key_is_wanted():
    tokens, targets = recall.Recall(batch_size=20)[0]
    assert tokens.shape == (20, 2 * recall.PAIRS + 1)
    for row, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        pairs = dict(zip(row[:-1:2], row[1:-1:2], strict=True))
        assert len(pairs) == recall.PAIRS
        assert wanted == pairs[row[-1]] - recall.SYMBOLS


def test_it_learns(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend is enough for an example")
    monkeypatch.setattr(recall, "PAIRS", 4)
    assert recall.main(epochs=2)["accuracy"] > 0.9
