"""bAbI: files, encoding, buckets, and the example, on small files that the tests write."""

import argparse
import hashlib
import json
import math
import pathlib
import tarfile

import babi as example
import babi_memory_maps
import keras
import make_preset
import numpy as np
import pytest

import keras_mnm
from keras_mnm.tasks import babi

PEOPLE, PLACES = ("mary", "john", "sandra"), ("kitchen", "garden", "office", "hallway")


def write_task(folder, task, split, stories, seed=0):
    """A file in bAbI's format: people move about, two questions a story, one with two answers."""
    rng = np.random.default_rng((seed, task, stories))
    lines = []
    for _ in range(stories):
        where = {}
        moves = int(rng.choice((2, 6)))
        for count in range(1, moves + 1):
            person, place = str(rng.choice(PEOPLE)), str(rng.choice(PLACES))
            where[person] = place
            lines.append(f"{count} {person.title()} went to the {place}.")
        person, place = next(iter(where.items()))
        lines.append(f"{moves + 1} Where is {person.title()}? \t{place}\t1")
        lines.append(f"{moves + 2} {person.title()} took the milk.")
        lines.append(f"{moves + 3} What is {person.title()} carrying?\tmilk,apple\t{moves + 2} 1")
    (folder / f"qa{task}_{split}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("babi")
    folder = root / "tasks_1-20_v1-2" / "en-valid-10k"
    folder.mkdir(parents=True)
    for task in babi.TASKS:
        write_task(folder, task, "train", 8)
        write_task(folder, task, "valid", 3, seed=1)
    return root


def text_of(questions, row):
    return babi.decode(questions.tokens[slice(*questions.starts[row : row + 2])])


def test_a_story_by_hand(tmp_path):
    story = (
        "1 Mary went to the kitchen.\n"
        "2 Where is Mary? \tkitchen\t1\n"
        "3 Mary took the apple.\n"
        "4 What is Mary carrying?\tapple,milk\t3 1\n"
        "1 The office is south of the garden.\n"
        "2 What is north of the office?\tgarden\t1\n"
    )
    (tmp_path / "qa7_train.txt").write_text(story)
    questions = babi.load(tmp_path, "train", [7])
    assert [text_of(questions, row) for row in range(3)] == [
        "mary went to the kitchen . where is mary ? -",
        "mary went to the kitchen . mary took the apple . what is mary carrying ? - -",
        "the office is south of the garden . what is north of the office ? -",
    ]
    answers = [[babi.decode(word) for word in row] for row in questions.answers]
    assert answers == [["", "", "kitchen"], ["", "apple", "milk"], ["", "", "garden"]]
    assert questions.tasks.tolist() == [7, 7, 7]

    tokens, targets = questions.batch([1, 2], 3, 20)
    assert tokens.shape == (3, 20)
    assert targets.shape == (3, babi.MAX_ANSWERS)
    assert babi.decode(tokens[0]) == text_of(questions, 1)
    assert np.all(tokens[0, :2] == babi.PADDING)
    assert tokens[0, -1] == tokens[0, -2] == tokens[1, -1] == babi.PLACEHOLDER
    assert np.all(tokens[2] == babi.PADDING)
    assert np.all(targets[2] == babi.NOT_ASKED)


def test_vocabulary():
    assert len(babi.VOCABULARY) == len(set(babi.VOCABULARY)) == 1 + 159
    assert list(babi.VOCABULARY[4:]) == sorted(babi.VOCABULARY[4:])
    with pytest.raises(ValueError, match="not in the vocabulary: elephant, paris"):
        babi.encode("The elephant went to Paris.")


def test_folder_archive_and_packed_file_hold_the_same(data_dir, tmp_path):
    with tarfile.open(tmp_path / "babi.tar.gz", "w:gz") as archive:
        archive.add(data_dir / "tasks_1-20_v1-2", "tasks_1-20_v1-2")
    babi.pack(data_dir, tmp_path / "babi.npz")
    with pytest.raises(ValueError, match="must end in .npz.*babi'"):
        babi.pack(data_dir, tmp_path / "babi")
    folder = data_dir / "tasks_1-20_v1-2" / "en-valid-10k"
    for split, tasks in (("train", range(1, 21)), ("valid", [3, 1])):
        expected = babi.load(data_dir, split, tasks)
        for source in (folder, tmp_path / "babi.tar.gz", tmp_path / "babi.npz"):
            found = babi.load(source, split, tasks)
            for one, other in zip(found, expected):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
    assert set(expected.tasks) == {1, 3}


GOOD = "1 Mary went to the kitchen.\n2 Where is Mary?\tkitchen\t1\n"
DAMAGED = {
    "line 1: the file ends within a story": GOOD[:28],
    "line 2: the file ends": GOOD[:-1],
    "numbered 3 or 1": GOOD + "5 Mary took the milk.\n" + GOOD,
    "numbered 1 or 1": "<html>\n" + GOOD,
    "not in the vocabulary: paris": GOOD.replace("kitchen", "Paris"),
    "at most 3 answers": GOOD.replace("\tkitchen\t1", "\tkitchen"),
    "expected a question": GOOD.replace("\tkitchen", "\tkitchen,milk,apple,garden"),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damaged_files_are_named(message, tmp_path):
    (tmp_path / "qa1_train.txt").write_text(DAMAGED[message])
    with pytest.raises(ValueError, match=f"qa1_train.txt.*{message}.*get tasks_1-20_v1-2.tar.gz"):
        babi.load(tmp_path, "train", [1])


def test_missing_and_foreign_sources(data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"has no qa1_test.txt"):
        babi.load(data_dir, "test", [1])
    with pytest.raises(ValueError, match="There is no folder or file"):
        babi.load(tmp_path / "nowhere")
    (tmp_path / "babi.tar.gz").write_bytes(b"\x1f\x8b and no more")
    with pytest.raises(ValueError, match="is not the whole archive"):
        babi.load(tmp_path / "babi.tar.gz")
    (tmp_path / "babi.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="holds no packed bAbI"):
        babi.load(tmp_path / "babi.npz")
    (tmp_path / "qa1_train.txt").write_bytes(b"1 M\xff\xfe")
    with pytest.raises(ValueError, match=r"qa1_train.txt is no text"):
        babi.load(tmp_path, "train", [1])
    with pytest.raises(ValueError, match="`tasks` must be one of 1, 2"):
        babi.load(data_dir, "train", [21])
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'valid', 'test'"):
        babi.load(data_dir, "dev")


def test_a_download_is_checked(tmp_path, monkeypatch):
    (tmp_path / "other.tar.gz").write_bytes(b"something else")
    monkeypatch.setattr(babi.files, "ARCHIVE_URLS", ((tmp_path / "other.tar.gz").as_uri(),))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        keras.utils,
        "get_file",
        lambda *args, get_file=keras.utils.get_file, **kwargs: get_file(
            *args, **kwargs, cache_dir=tmp_path / "cache"
        ),
    )
    with pytest.raises(ValueError, match=r"could not be downloaded.*hash.*give its path"):
        babi.load()
    urls = ((tmp_path / "absent.tar.gz").as_uri(), (tmp_path / "other.tar.gz").as_uri())
    monkeypatch.setattr(babi.files, "ARCHIVE_URLS", urls)
    sha256 = hashlib.sha256(b"something else").hexdigest()
    monkeypatch.setattr(babi.files, "ARCHIVE_SHA256", sha256)
    assert pathlib.Path(babi.files.download()).read_bytes() == b"something else"


def brute_force(lengths, count):
    """The least number of tokens with `count` lengths to pad to, by trying all."""
    import itertools

    distinct = sorted(set(lengths))
    choices = itertools.combinations(distinct[:-1], count - 1)
    return min(
        sum(min(b for b in (*chosen, distinct[-1]) if b >= n) for n in lengths)
        for chosen in choices
    )


def test_padding_stays_below_the_bound():
    lengths = np.random.default_rng(0).gamma(3.0, 25.0, size=20_000).astype(int) + 5
    starts = np.concatenate([[0], np.cumsum(lengths)])
    answers = np.ones((len(lengths), babi.MAX_ANSWERS), "int16")
    tasks = np.ones(len(lengths), "uint8")
    questions = babi.Questions(np.ones(starts[-1], "uint8"), starts, answers, tasks)
    data = babi.Babi(questions, batch_size=32)
    tokens = sum(data[index][0].size for index in range(len(data)))
    assert data.padding == pytest.approx(1.0 - starts[-1] / tokens)
    assert data.padding < 0.1
    assert len(data.lengths) < 20
    with pytest.raises(ValueError, match="`lengths` must be positive"):
        babi.bucket_lengths([])


def test_bucket_lengths_are_the_best():
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 60, size=14)
        for max_padding in (0.3, 0.15, 0.05):
            found = babi.bucket_lengths(lengths, max_padding)
            padded = np.array(found)[np.searchsorted(found, lengths)]
            assert padded.sum() == brute_force(lengths.tolist(), len(found))
            assert 1 - lengths.sum() / padded.sum() <= max_padding
            if len(found) > 1:
                assert (
                    1 - lengths.sum() / brute_force(lengths.tolist(), len(found) - 1) > max_padding
                )


def test_every_question_comes_once_a_pass(data_dir):
    questions = babi.load(data_dir)
    data = babi.Babi(questions, batch_size=16, max_tokens=400, seed=3)
    for _ in range(2):
        passed = []
        data.on_epoch_begin()
        for index in range(len(data)):
            length, rows = data.rows(index)
            tokens, targets = data[index]
            size = data.batch_size_of(length)
            assert tokens.shape == (size, length)
            assert tokens.size <= 400
            assert size <= 16
            present = (targets != babi.NOT_ASKED).any(axis=1)
            assert present.sum() == len(rows)
            for row, line in zip(rows, tokens):
                assert babi.decode(line) == text_of(questions, row)
            passed.extend(rows)
        assert sorted(passed) == list(range(len(questions.tasks)))
        data.on_epoch_end()


def test_a_pass_is_shuffled_in_its_batches_and_within_them(data_dir):
    data, passes = babi.Babi(babi.load(data_dir), batch_size=16), []
    for _ in range(2):
        data.on_epoch_begin()
        passes.append([data.rows(index) for index in range(len(data))])
        data.on_epoch_end()
    lengths = [length for length, _ in passes[0]]
    assert lengths != sorted(lengths)
    one, other = ({frozenset(map(int, rows)) for _, rows in each} for each in passes)
    assert one != other


def test_questions_come_as_often_as_asked(data_dir):
    questions = babi.load(data_dir)
    data = babi.Babi(questions, batch_size=16, max_tokens=400, seed=3, repeat={2: 3, 16: 5})
    passed = np.concatenate([data.rows(index)[1] for index in range(len(data))])
    times = np.bincount(passed, minlength=len(questions.tasks))
    for task in babi.TASKS:
        assert np.all(times[questions.tasks == task] == {2: 3, 16: 5}.get(task, 1))
    batches = [data[index][0] for index in range(len(data))]
    padding = sum(np.sum(tokens == babi.PADDING) for tokens in batches)
    assert data.padding == pytest.approx(padding / sum(tokens.size for tokens in batches))
    with pytest.raises(ValueError, match="names task 3, of which there are no questions"):
        babi.Babi(babi.load(data_dir, tasks=[1, 2]), repeat={3: 2})
    with pytest.raises(ValueError, match="names task '2', of which"):
        babi.Babi(questions, repeat={"2": 3})
    with pytest.raises(ValueError, match=r"must be a dict .* Received: repeat=\[\[2, 3\]\]"):
        babi.Babi(questions, repeat=[[2, 3]])
    with pytest.raises(ValueError, match=r"`repeat\[2\]` must be .* repeat\[2\]=0"):
        babi.Babi(questions, repeat={2: 0})


def test_batches_depend_on_seed_and_number_alone(data_dir):
    questions = babi.load(data_dir)

    def rows(count, **options):
        data = babi.Babi(questions, batch_size=16, **options)
        found = []
        while len(found) < count:
            data.on_epoch_begin()
            found += [tuple(data.rows(index)[1]) for index in range(len(data))]
            data.on_epoch_end()
        return found[:count]

    whole = rows(40, seed=1)
    assert rows(40, seed=1, steps=5) == whole
    assert rows(30, seed=1, steps=5, first_epoch=2) == whole[10:]
    assert rows(40, seed=2) != whole
    fixed = rows(12, steps=6, fixed=True)
    assert fixed[:6] == fixed[6:]


def test_exchanged_words_keep_stories_true(data_dir):
    questions = babi.load(data_dir)
    plain = babi.Babi(questions, batch_size=16, seed=1)
    data = babi.Babi(questions, batch_size=16, seed=1, exchange_words=True)
    changed = asked = 0
    for index in range(len(data)):
        _, rows = data.rows(index)
        before, after = plain[index], data[index]
        assert [a.shape for a in after] == [b.shape for b in before]
        assert [a.dtype for a in after] == [b.dtype for b in before]
        for place in range(len(rows)):
            old, new = (babi.decode(tokens[place]).split() for tokens in (before[0], after[0]))
            changed += old != new
            if new[-5:-3] == ["where", "is"]:
                asked += 1
                last_move = max(i for i, word in enumerate(new[:-3]) if word == new[-3])
                assert [new[last_move + 4]] == answer_words(after[1][place])
        assert np.all(after[0][len(rows) :] == babi.PADDING)
    assert changed > len(questions.tasks) / 2
    assert asked == len(questions.tasks) / 2


def answer_words(targets):
    return babi.decode(targets[targets != babi.NOT_ASKED]).split()


MEN, WOMEN = {"john", "daniel"}, {"mary", "sandra"}
ROOMS, OBJECTS = {"kitchen", "garden", "office"}, {"milk", "apple", "football"}
EXCHANGED = {  # stories, and which of their words are exchanged for each other
    11: (
        "mary went to the kitchen . then she moved to the garden . john went to the office . "
        "daniel went to the office . sandra went to the office . where is mary ? garden",
        (MEN, WOMEN, ROOMS),
    ),
    8: (
        "john took the milk . john left the apple . mary took the football . mary took the milk . "
        "what is mary carrying ? football milk",
        (OBJECTS,),
    ),
    16: (
        "lily is a swan . brian is a rhino . greg is a swan . brian is gray . greg is white . "
        "what color is lily ? white",
        ({"brian", "greg"}, {"swan", "rhino"}, {"gray", "white"}),
    ),
    17: (
        "the red square is to the left of the blue square . the triangle is above the red square . "
        "the blue square is below the triangle . is the triangle to the right of the red square ? "
        "no",
        ({"red", "blue"}, {"left", "right"}, {"above", "below"}),
    ),
    20: (
        "sumit is hungry . yann is tired . sumit went to the kitchen . sumit got the apple there . "
        "yann went to the bedroom . yann got the milk there . why did yann go to the bedroom ? "
        "tired",
        ({"sumit", "yann"},),
    ),
}


@pytest.mark.parametrize("task", EXCHANGED)
def test_words_are_exchanged_within_their_kind(task):
    story, kinds = EXCHANGED[task]
    story, _, answer = story.partition(" ? ")
    question = np.array([babi.encode(story)], "int32")
    answers = np.full((1, babi.MAX_ANSWERS), babi.NOT_ASKED, "int32")
    answers[0, babi.MAX_ANSWERS - len(answer.split()) :] = babi.encode(answer)
    questions = babi.Questions(
        question[0].astype("uint8"), np.array([0, question.size]), answers, np.array([task])
    )
    exchange, count = babi.WordExchange(questions), 500
    tokens, targets = exchange(
        np.random.default_rng(0),
        np.repeat(questions.tasks, count),
        np.repeat(question, count, axis=0),
        np.repeat(answers, count, axis=0),
    )
    words, seen = story.split() + answer.split(), set()
    for row, targets_of_row in zip(tokens, targets):
        told = babi.decode(row).split() + answer_words(targets_of_row)
        becomes = dict(zip(words, told, strict=True))
        assert [becomes[word] for word in words] == told  # everywhere alike
        for word in becomes:
            assert becomes[word] == word or any({word, becomes[word]} <= kind for kind in kinds)
        for kind in kinds:  # no two words become one
            assert {becomes[word] for word in kind} == kind
        seen.add(tuple(told))
    with pytest.raises(ValueError, match=r"must be among \[\d+\], .* Received: \[1\]"):
        exchange(np.random.default_rng(0), [1], tokens[:1], targets[:1])
    assert len(seen) == np.prod([math.factorial(len(kind)) for kind in kinds])


def test_exchanged_words_depend_on_seed_and_number_alone(data_dir):
    questions = babi.load(data_dir)
    a_pass = -(-len(questions.tasks) // 16)

    def told(seed=1, first_epoch=0, epochs=1, order=list, **options):
        """The questions of the last epoch, in the order of the files."""
        options = {"batch_size": 16, "lengths": [80], "exchange_words": True, **options}
        data = babi.Babi(questions, seed=seed, first_epoch=first_epoch, **options)
        found = {}
        for _ in range(epochs):
            data.on_epoch_begin()
            for index in order(range(len(data))):
                for row, tokens in zip(data.rows(index)[1], data[index][0]):
                    found[row] = tuple(tokens)
            data.on_epoch_end()
        return [found[row] for row in range(len(questions.tasks))]

    assert told() == told()
    assert told() == told(steps=a_pass)
    assert told() == told(order=reversed)
    assert told(epochs=2) == told(first_epoch=1)
    assert told() != told(first_epoch=1)
    assert told() != told(seed=2)
    assert told(fixed=True, epochs=2) == told()


def test_words_are_exchanged_in_training_alone(data_dir):
    args = {"data_dir": data_dir, "batch_size": 16, "max_tokens": 32768, "seed": 0}
    args = argparse.Namespace(**args, max_padding=None, validate_every=4, steps_per_epoch=4)
    settings = {"tasks": [1, 2]}
    exchanged = {**settings, "exchange_words": True, "repeat": [[2, 3]]}
    plain = example.TASK.training_data(settings, args, 8)
    data = example.TASK.training_data(exchanged, args, 8)
    assert data.batches > plain.batches
    _, rows = data.rows(0)
    tokens, _ = data[0]
    assert not np.array_equal(tokens, data.questions.batch(rows, *tokens.shape)[0])
    validated = [example.TASK.validation(each, args).data for each in (settings, exchanged)]
    assert len(validated[0]) == len(validated[1])
    for index in range(len(validated[0])):
        np.testing.assert_array_equal(validated[0][index][0], validated[1][index][0])


def test_babi_checks_its_arguments(data_dir):
    questions = babi.load(data_dir)
    with pytest.raises(ValueError, match="the longest question has .* tokens"):
        babi.Babi(questions, max_tokens=20)
    with pytest.raises(ValueError, match="the longest question has .* tokens"):
        babi.Babi(questions, lengths=[5])
    for lengths in ([], [0, 80]):
        with pytest.raises(ValueError, match=r"`lengths` must be positive.*Received: lengths=\["):
            babi.Babi(questions, lengths=lengths)
    with pytest.raises(ValueError, match="lengths=.*, max_tokens=79"):
        babi.Babi(questions, lengths=[10, 80], max_tokens=79)
    longer = babi.Babi(questions, lengths=[10, 80, 5000], max_tokens=400)
    assert max(longer.rows(index)[0] for index in range(len(longer))) == 80
    with pytest.raises(ValueError, match="`questions` must hold at least one"):
        babi.Babi(questions._replace(tasks=questions.tasks[:0]))


def test_padding_changes_nothing(data_dir):
    keras.utils.set_random_seed(0)
    model = keras_mnm.token_model(
        keras_mnm.MNM(8, return_sequences=True), len(babi.VOCABULARY), None, 3, 8, mask_zero=True
    )
    loss, metrics = example.TASK.loss_and_metrics()
    model.compile("adam", loss=loss, metrics=metrics)
    questions = babi.load(data_dir, "valid", [1])
    short = questions.batch([0, 1], 2, int(questions.lengths[:2].max()))
    long = questions.batch([0, 1], 3, 60)
    for one, other in zip(model.predict_on_batch(short[0]), model.predict_on_batch(long[0])):
        np.testing.assert_allclose(one[-1], other[-1], rtol=1e-4, atol=1e-5)
    one, other = (model.test_on_batch(*batch, return_dict=True) for batch in (short, long))
    assert one["sequence_accuracy"] == other["sequence_accuracy"]
    assert one["loss"] - one["meta_loss"] == pytest.approx(other["loss"] - other["meta_loss"])


RUN = ["--tasks", "1,2", "--batch-size", "8", "--validate-every", "4", "--steps", "12"]


def shrink(patch):
    """Makes the example's models and epochs small."""
    small = lambda name, **options: keras.layers.LSTM(16, return_sequences=True)
    patch.setattr(example.TASK, "recurrent_layer", small)
    patch.setattr(example.TASK, "steps_per_epoch", 4)


def test_files_that_are_missing_are_told_before_training(data_dir, tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    output = ["--output", str(tmp_path / "run"), "--split", "test"]
    with pytest.raises(SystemExit):
        example.main([*RUN, "--data-dir", str(data_dir), *output])
    assert "has no qa1_test.txt, qa2_test.txt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "babi"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        example.main([*RUN, "--data-dir", str(data_dir), "--output", str(folder)])
    return folder


def test_training_writes_errors_by_task(run, data_dir, capsys):
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["error_per_task"]) == {"1", "2"}
    assert metrics["mean_error"] == pytest.approx(np.mean(list(metrics["error_per_task"].values())))
    assert metrics["settings"]["tasks"] == [1, 2]
    assert "| 2: two supporting facts |" in (run / "errors.md").read_text()
    assert (run / "errors.png").read_bytes().startswith(b"\x89PNG")
    history = json.loads((run / "history.json").read_text())["history"]
    assert len(history["loss"]) == len(history["val_sequence_accuracy"]) == 3

    example.main(["--evaluate", str(run), "--tasks", "1,2", "--data-dir", str(data_dir)])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["error_per_task"] == metrics["error_per_task"]
    assert figures["mean_error"] == metrics["mean_error"]
    # The best model by validation is the result.
    best = max(history["val_sequence_accuracy"])
    assert figures["mean_error"] == pytest.approx(100 * (1 - best), abs=0.01)


class AlwaysMilkKitchen:
    """A model with the same answer for all."""

    def predict_on_batch(self, tokens):
        answer = [babi.PLACEHOLDER, *babi.encode("milk kitchen")]
        return np.eye(len(babi.VOCABULARY))[[answer] * len(tokens)]


def test_wrong_answers_are_those_of_plain_loops(data_dir):
    questions = babi.load(data_dir, "train", [1, 2, 3])
    milk, kitchen = babi.encode("milk kitchen")
    expected = [a[-1] != kitchen or a[-2] not in (babi.NOT_ASKED, milk) for a in questions.answers]
    batches = babi.Babi(questions, batch_size=16, fixed=True)
    assert example.wrong_answers(AlwaysMilkKitchen(), batches).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_a_run_of_some_tasks_becomes_a_preset(run, data_dir, tmp_path):
    words = [run, tmp_path / "mine", "--data-dir", data_dir, "--note", "x", "--results", tmp_path]
    make_preset.main([str(word) for word in words])
    card = keras_mnm.list_presets(tmp_path)["mine"]
    assert card["description"].endswith("on bAbI question answering, tasks 1, 2.")
    assert card["training"]["note"] == "x"
    assert card["metrics"]["split"] == "valid"
    metrics = json.loads((run / "metrics.json").read_text())
    assert card["metrics"]["error_per_task"] == metrics["error_per_task"]


def test_rows_of_the_memory_maps(tmp_path, monkeypatch):
    drawn, lstm = [], keras.layers.LSTM(4, return_sequences=True)
    draw = lambda *arguments, **options: drawn.append((arguments, options))
    monkeypatch.setattr(keras_mnm.visualize, "memory_maps", draw)
    model = keras_mnm.token_model(lstm, len(babi.VOCABULARY), None, 3, 4, mask_zero=True)
    monkeypatch.setattr("experiment.open_model", lambda name: model)
    story = "Mary left. John left. Mary took the milk. Where is Mary?"
    babi_memory_maps.main(["any", "--story", story, "--output", str(tmp_path)])
    rows = [" ".join(arguments[2][options["queries"]]) for arguments, options in drawn]
    assert rows == ["where is mary ? -", "mary left . john left . mary took the milk ."]


def test_what_is_trained_on_is_kept_by_resume(data_dir, tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    options = ["--data-dir", str(data_dir), "--output", str(tmp_path / "run")]
    repeated = [*RUN, *options, "--repeat", "2:3", "--exchange-words"]
    example.main([*repeated, "--minutes", "1e-9"])
    with pytest.raises(SystemExit):
        example.main([*RUN, *options, "--resume"])
    message = capsys.readouterr().err
    assert "exchange_words (there True, here None)" in message
    assert "repeat (there [[2, 3]], here None)" in message
    example.main([*repeated, "--resume"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["updates"] == 12
    assert metrics["settings"]["repeat"] == [[2, 3]]
    assert metrics["settings"]["exchange_words"] is True
    capsys.readouterr()
    for counts, message in (
        ("2", "expected each task once with a count of at least 1, as 16:10,17:3; received '2'"),
        ("2:0", "expected each task once with a count of at least 1"),
        ("2:2,2:3", "expected each task once with a count of at least 1"),
        ("3:2", "--repeat names task 3, which is not trained on"),
    ):
        with pytest.raises(SystemExit):
            example.main([*RUN, *options[:2], "--output", str(tmp_path / "no"), "--repeat", counts])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_more_padding_needs_fewer_lengths(data_dir):
    options = {"data_dir": data_dir, "batch_size": 1, "max_tokens": 32768, "seed": 0}
    settings = {"tasks": [1, 2]}
    usual, padded = (
        example.TASK.training_data(settings, argparse.Namespace(max_padding=share, **options), 3)
        for share in (None, 0.5)
    )
    assert len(padded.lengths) < len(usual.lengths)
    assert usual.padding < 0.1 < padded.padding < 0.5


def test_questions_in_words(run, capsys):
    story = "Mary went to the kitchen. Where is Mary?"
    example.main(["--evaluate", str(run), "--ask", story, "--answers", "2"])
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]]
    model = keras.saving.load_model(run / "model.keras")
    tokens = np.array([[*babi.encode(story), babi.PLACEHOLDER, babi.PLACEHOLDER]])
    assert words == babi.decode(model.predict(tokens, verbose=0)[0, -2:].argmax(-1)).split()
    with pytest.raises(SystemExit):
        example.main(["--ask", story])
    assert "name the model" in capsys.readouterr().err
    for text, message in (
        ("Mary went to Rome. Where is Mary?", "not in the vocabulary: rome"),
        ("Mary went to Rome, then left. Where is Mary?", "not in the vocabulary: ',', rome"),
        ("Mary went to the kitchen.", "end the story with a question"),
        ("Where is Mary?", "give a story before the question"),
    ):
        with pytest.raises(SystemExit):
            example.main(["--evaluate", str(run), "--ask", text])
        assert message in capsys.readouterr().err


def test_the_preset_answers(capsys):
    story = "Jason is thirsty. Where will Jason go?"
    example.main(["--evaluate", "babi-mnm-p", "--ask", story])
    assert capsys.readouterr().out.splitlines()[-1].startswith("kitchen (")


def test_heads_of_the_layer_are_the_papers_unless_asked_for():
    task = type(example.TASK)()
    assert task.recurrent_layer("mnm-p").cell.num_heads == 3
    assert task.recurrent_layer("mnm-p", num_heads=1).cell.num_heads == 1


def test_training_ends_without_progress():
    settings = {"patience": 2}
    looks = lambda *values: {"loss": [1.0] * len(values), "val_sequence_accuracy": list(values)}
    assert not example.TASK.is_done(settings, {})
    assert not example.TASK.is_done(settings, looks(None, 0.5, None, 0.4, None, 0.6))
    assert not example.TASK.is_done(settings, looks(0.5, 0.4, None, None))
    assert example.TASK.is_done(settings, looks(0.5, None, 0.4, 0.5))


def test_stopped_by_time_and_resumed_equals_unbroken(run, data_dir, tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    options = [*RUN, "--data-dir", str(data_dir), "--output", str(tmp_path / "run")]
    example.main([*options, "--minutes", "0.000001"])
    assert "Stopped after 1e-06 minutes. 4 updates are kept" in capsys.readouterr().out
    example.main([*options, "--resume"])
    whole = json.loads((run / "history.json").read_text())["history"]
    broken = json.loads((tmp_path / "run" / "history.json").read_text())["history"]
    for name in whole:
        np.testing.assert_allclose(broken[name], whole[name], rtol=1e-5)


@pytest.mark.parametrize("lengths", [(30, 50), (200, 300)])
def test_the_story_to_draw_comes_nearest_to_a_legible_one(lengths, data_dir, monkeypatch):
    monkeypatch.setattr(babi_memory_maps, "SHORTEST", lengths[0])
    monkeypatch.setattr(babi_memory_maps, "LONGEST", lengths[1])
    chosen = argparse.Namespace(story=None, data_dir=data_dir, split="valid", task=7)
    tokens = babi_memory_maps.read_story(chosen, example, babi)
    questions = babi.load(data_dir, "valid", [7])
    off = [max(lengths[0] - n, n - lengths[1], 0) for n in questions.lengths]
    row = off.index(min(off))
    assert babi.decode(tokens) == text_of(questions, row)
    asked = argparse.Namespace(story="Mary left. Where is Mary?", answers=2)
    assert babi_memory_maps.read_story(asked, example, babi)[-2:] == [babi.PLACEHOLDER] * 2
