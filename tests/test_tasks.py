import numpy as np
import pytest

from keras_mnm.tasks import (
    DictionaryInference,
    DoubleCopy,
    PrioritySort,
    dictionary,
    double_copy,
    priority_sort,
)


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


def test_all_letters_occur():
    tokens, _ = dictionary.make_batch(np.random.default_rng(0), 2000, 16, 1)
    distinct = [len(set(row)) for row in tokens[:, :64:4].tolist()]
    assert max(distinct) == 13
    assert np.mean(distinct) == pytest.approx(13 * (1 - (12 / 13) ** 16), abs=0.1)


def test_letters_of_a_query_are_drawn_one_by_one():
    tokens, _ = dictionary.make_batch(np.random.default_rng(0), 2000, 8, 4)
    assert 3.3 < np.mean([len(set(row)) for row in tokens[:, 81:85].tolist()]) < 3.7


def test_no_batch_comes_twice():
    data, seen = DictionaryInference(8, 4, batch_size=3, steps=4), []
    for _ in range(3):
        data.on_epoch_begin()
        seen += [data[index][0].tobytes() for index in range(4)]
        data.on_epoch_end()
    assert len(set(seen)) == 12


def test_a_seed_has_32_bits():
    """NumPy draws alike by (2**32, 3) and (0, 1, 3)."""
    with pytest.raises(ValueError, match="`seed` must be less than 2..32.*4294967296"):
        DictionaryInference(8, 4, seed=2**32)


def test_batches_depend_on_seed_epoch_and_index_alone():
    data = DictionaryInference(8, 4, batch_size=3, steps=2, seed=5)
    data.on_epoch_begin()
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
    fixed.on_epoch_begin()
    np.testing.assert_array_equal(second, fixed[1][0])
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
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        DictionaryInference(*arguments)


@pytest.mark.parametrize("task", [DictionaryInference, DoubleCopy, PrioritySort])
@pytest.mark.parametrize("option", ["batch_size", "steps"])
def test_options_of_all_tasks_are_checked(task, option):
    with pytest.raises(ValueError, match=f"`{option}`.*0"):
        task(**{option: 0})


def test_decode():
    assert dictionary.decode([0, 26, 25, 27, 28, 29]) == "a→z|?_"
    assert double_copy.decode([0, 9, 10, 11]) == "09|_"


def test_double_copy_is_as_defined():
    tokens, targets = DoubleCopy(batch_size=300, seed=3)[0]
    assert tokens.shape == (300, 151)
    assert targets.shape == (300, 100)
    for row, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        symbols = row[:50]
        assert row[50:] == [double_copy.DELIMITER] + [double_copy.PLACEHOLDER] * 100
        assert target == symbols + symbols
    counts = np.bincount(tokens[:, :50].ravel(), minlength=10)
    assert len(counts) == 10
    assert np.all(np.abs(counts - 1500) < 190)  # five standard deviations


def test_priority_sort_is_as_defined():
    inputs, targets = PrioritySort(batch_size=300, seed=3)[0]
    assert inputs.shape == (300, 36, 9)
    assert targets.shape == (300, 16, 8)
    assert not inputs[:, 20:].any()
    for sample, target in zip(inputs[:, :20].tolist(), targets.tolist(), strict=True):
        in_order = sorted(sample, key=lambda vector: vector[8], reverse=True)
        assert [vector[:8] for vector in in_order[:16]] == target
    bits, priorities = inputs[:, :20, :8], inputs[:, :20, 8]
    assert set(np.unique(bits)) == {0.0, 1.0}
    assert abs(bits.mean() - 0.5) < 0.012
    assert -1 <= priorities.min() < -0.99
    assert 0.99 < priorities.max() <= 1
    assert abs(priorities.mean()) < 0.04


def test_impossible_sorts():
    with pytest.raises(ValueError, match="sorted_vectors=5, vectors=4"):
        priority_sort.check_instance(4, 5)
