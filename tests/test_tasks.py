import numpy as np
import pytest

from keras_mnm.tasks import DictionaryInference, dictionary


@pytest.mark.parametrize(
    ("support_size", "length", "steps"), [(4, 1, 20), (8, 4, 90), (12, 8, 234), (16, 12, 442)]
)
def test_every_sample_is_as_defined(support_size, length, steps):
    tokens, targets = dictionary.make_batch(np.random.default_rng(0), 200, support_size, length)
    assert tokens.shape == (200, steps)
    assert targets.shape == (200, length)
    for row, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        translation, support = {}, []
        for k in range(support_size):
            example = row[k * (2 * length + 2) : (k + 1) * (2 * length + 2)]
            assert example[length] == dictionary.END_OF_SEQUENCE
            assert example[-1] == dictionary.SEPARATOR
            source, image = example[:length], example[length + 1 : -1]
            support.append(source)
            for letter, other in zip(source, image, strict=True):
                assert translation.setdefault(letter, other) == other  # a function
        assert len(set(translation.values())) == len(translation)  # one to one
        assert not set(translation) & set(translation.values())  # two alphabets
        assert all(0 <= letter < 26 for pair in translation.items() for letter in pair)
        rest = row[support_size * (2 * length + 2) :]
        assert rest[0] == dictionary.END_OF_SUPPORT
        query = rest[1 : 1 + length]
        assert rest[1 + length :] == [
            dictionary.END_OF_SEQUENCE,
            *[dictionary.PLACEHOLDER] * length,
        ]
        assert [translation[letter] for letter in query] == target
        if length > 1:
            assert query not in support


def test_letters_and_queries_are_drawn_evenly():
    tokens, targets = dictionary.make_batch(np.random.default_rng(1), 26_000, 4, 1)
    for column in (tokens[:, 0], targets[:, 0]):
        counts = np.bincount(column, minlength=26)
        assert np.all(np.abs(counts - 1000) < 160)  # five standard deviations


def test_batches_depend_on_seed_epoch_and_index_alone():
    data = DictionaryInference(8, 4, batch_size=3, steps=2, seed=5)
    first, second = data[0][0], data[1][0]
    assert len(data) == 2
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, data[0][0])
    data.on_epoch_end()
    assert not np.array_equal(first, data[0][0])
    resumed = DictionaryInference(8, 4, batch_size=3, steps=2, seed=5, first_epoch=1)
    np.testing.assert_array_equal(resumed[0][0], data[0][0])
    other = DictionaryInference(8, 4, batch_size=3, steps=2, seed=6)
    assert not np.array_equal(first, other[0][0])
    fixed = DictionaryInference(8, 4, batch_size=3, steps=2, seed=5, fixed=True)
    fixed.on_epoch_end()
    np.testing.assert_array_equal(first, fixed[0][0])


def test_small_supports_that_often_leave_no_query_are_drawn_again():
    tokens, _ = dictionary.make_batch(np.random.default_rng(2), 500, 1, 2)
    assert np.all(tokens[:, 0] != tokens[:, 1])  # "aa" allows only the query "aa"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "`support_size`.*0"),
        ((4, 0), "`length`.*0"),
        ((100, 2), "support set of 100.*169 sequences of length 2"),
        ((4, 1, 0), "`batch_size`.*0"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        DictionaryInference(*arguments)


def test_decode():
    assert dictionary.decode([0, 26, 25, 27, 28, 29]) == "a→z|?_"
