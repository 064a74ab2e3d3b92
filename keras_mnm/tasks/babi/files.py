"""bAbI's files: reading, checking, downloading and packing them."""

import pathlib
import tarfile
import typing
import zipfile
import zlib

import keras
import numpy as np

from keras_mnm.files import replacing
from keras_mnm.tasks.babi.vocabulary import PADDING, PLACEHOLDER, TASKS, encode
from keras_mnm.validation import one_of

SPLITS = ("train", "valid", "test")
NOT_ASKED = -1
"""The target where no answer is wanted."""
MAX_ANSWERS = 3
"""Words of the longest answer."""

ARCHIVE_SHA256 = "0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898"
ARCHIVE_URLS = (
    "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",
    "https://s3.amazonaws.com/text-datasets/babi_tasks_1-20_v1-2.tar.gz",
)
_LAYOUT = "tasks_1-20_v1-2/en-valid-10k"
_ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    tarfile.TarError,
    zlib.error,
    UnicodeDecodeError,
    KeyError,
    AttributeError,  # of a member that is no file
)
"""What reading a damaged or foreign archive raises."""


class Questions(typing.NamedTuple):
    """Questions with their stories, packed; 180,000 of them take 15 MB."""

    tokens: np.ndarray
    """uint8, the rows one after the other: facts, question, a placeholder for each answer word."""
    starts: np.ndarray
    """int64 `[N + 1]`, where the rows begin in `tokens`, and where the last one ends."""
    answers: np.ndarray
    """int16 `[N, 3]`, the answer's words at the right, `NOT_ASKED` before them."""
    tasks: np.ndarray
    """uint8 `[N]`, the task of each question."""

    @property
    def lengths(self):
        """int64 `[N]`, tokens of each row."""
        return np.diff(self.starts)

    def row(self, number):
        """The tokens of a question."""
        return self.tokens[slice(*self.starts[number : number + 2])]

    def batch(self, rows, size, length):
        """Padded rows.

        Args:
            rows: Numbers of at most `size` questions.
            size: `B`; rows that are not filled have padding only, and nothing asked.
            length: `T`, at least the longest row's.

        Returns:
            Tokens `[B, T]`, padded on the left, and targets `[B, 3]`, both int32.
        """
        tokens = np.full((size, length), PADDING, "int32")
        targets = np.full((size, MAX_ANSWERS), NOT_ASKED, "int32")
        for place, number in enumerate(rows):
            row = self.row(number)
            tokens[place, length - len(row) :] = row
        targets[: len(rows)] = self.answers[rows]
        return tokens, targets


def load(source=None, split="train", tasks=tuple(TASKS)):
    """Reads the questions of some tasks.

    Args:
        source: The folder of the official layout or one above it (with `qa1_train.txt` and its
            like, as in `tasks_1-20_v1-2/en-valid-10k`), the archive itself (`.tar.gz`), or a file
            that `pack` wrote (`.npz`). Defaults to the official archive, which is downloaded once,
            its SHA-256 checked, into Keras's cache.
        split: `"train"`, `"valid"` or `"test"`.
        tasks: Numbers of tasks, 1 to 20. Defaults to all.

    Returns:
        `Questions`, by task and then in the order of the files. A file that is missing, cut
        within a story or not in the format raises a ValueError that names it.
    """
    one_of("split", split, SPLITS)
    tasks = check_tasks(tasks)
    source = pathlib.Path(source or download())
    if source.suffix == ".npz":
        return _unpack(source, split, tasks)
    texts = _read_files(source, [f"qa{task}_{split}.txt" for task in tasks])
    return _join(
        [(task, *parse(text, name)) for task, (name, text) in zip(tasks, texts, strict=True)]
    )


def check_tasks(tasks):
    """The numbers of tasks as a sorted tuple, or a ValueError."""
    chosen = set(tasks) if np.iterable(tasks) else {tasks}
    for task in chosen:
        one_of("tasks", task, TASKS)
    if not chosen:
        raise ValueError("`tasks` must name at least one of the tasks 1 to 20. Received none.")
    return tuple(sorted(chosen))


def parse(text, name):
    """The questions of one file's text.

    Args:
        text: Lines with a number that starts at 1 for each story, and a fact; or a question, its
            answer, and the numbers of its supporting facts, separated by tabs.
        name: What to call the file in an error.

    Returns:
        Two lists with an entry a question: the tokens of its facts, its question and its
        placeholders; and the tokens of its answer.
    """

    rows, answers, facts, question = [], [], [], ()
    last, count = 0, 1

    def wrong(problem):
        return ValueError(
            f"{name}, line {count}: {problem}. The file is damaged or no bAbI task; get "
            "tasks_1-20_v1-2.tar.gz again and use its folder en-valid-10k."
        )

    lines = text.splitlines()
    for count in range(1, len(lines) + 1):
        line = lines[count - 1]
        digits, _, statement = line.partition(" ")
        if not digits.isdecimal() or int(digits) not in (1, last + 1) or not statement.strip():
            raise wrong(f"expected a statement numbered {last + 1} or 1, found {line[:60]!r}")
        last = int(digits)
        facts = [] if last == 1 else facts
        statement, *question = statement.split("\t")
        try:
            words = encode(statement)
            answer = [encode(word) for word in question[0].split(",")] if question else []
        except ValueError as error:
            raise wrong(str(error).split(". ")[0]) from None
        if not question:
            facts = facts + words
        elif len(question) == 2 and len(answer) <= MAX_ANSWERS and all(map(_is_one, answer)):
            rows.append(facts + words + [PLACEHOLDER] * len(answer))
            answers.append([word for (word,) in answer])
        else:
            raise wrong(
                f"expected a question, at most {MAX_ANSWERS} answers and the supporting facts, "
                f"found {line[:60]!r}"
            )
    if not question or not text.endswith("\n"):
        raise wrong("the file ends within a story")
    return rows, answers


def _is_one(words):
    return len(words) == 1


def pack(source, path, splits=("train", "valid")):
    """Writes the questions of all tasks to one `.npz` file, which `load` reads in an instant.

    Args:
        source: As in `load`.
        path: The file, which ends in `.npz`.
        splits: What to pack. Defaults to `("train", "valid")`.
    """
    if pathlib.Path(path).suffix != ".npz":  # by which `load` knows it
        raise ValueError(f"A packed file's name must end in .npz. Received: {str(path)!r}.")
    arrays = {
        f"{split}_{field}": array
        for split in splits
        for field, array in load(source, split)._asdict().items()
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _unpack(path, split, tasks):
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            whole = Questions(*(arrays[f"{split}_{field}"] for field in Questions._fields))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} holds no packed bAbI questions of split {split!r}: {error}. Make it again "
            f"with keras_mnm.tasks.babi.pack(source, {path.name!r}, splits={SPLITS})."
        ) from error
    wanted = np.isin(whole.tasks, tasks)
    return Questions(
        whole.tokens[np.repeat(wanted, whole.lengths)],
        np.concatenate([[0], np.cumsum(whole.lengths[wanted])]),
        whole.answers[wanted],
        whole.tasks[wanted],
    )


def _join(parsed):
    """`Questions` of a list of tasks with their rows and answers."""
    rows = [row for _, rows, _ in parsed for row in rows]
    answers = [answer for _, _, answers in parsed for answer in answers]
    lengths = [len(row) for row in rows]
    return Questions(
        np.fromiter((token for row in rows for token in row), "uint8", sum(lengths)),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.array([[NOT_ASKED] * (MAX_ANSWERS - len(a)) + a for a in answers], "int16"),
        np.repeat([task for task, *_ in parsed], [len(rows) for _, rows, _ in parsed]).astype(
            "uint8"
        ),
    )


def _read_files(source, names):
    """Pairs of a path, for errors, and the text of it."""
    if source.is_dir():
        folders = [source, source / "en-valid-10k", source / _LAYOUT]
        holds = lambda folder, name: (folder / name).is_file()
        found = (f for f in folders if any(holds(f, name) for name in names))
        folder = next(found, source)
        missing = [name for name in names if not holds(folder, name)]
        if missing:
            raise ValueError(
                f"{folder} has no {', '.join(missing)}. Expected the folder en-valid-10k "
                "of tasks_1-20_v1-2.tar.gz, or one above it."
            )
        return [(folder / name, _text(folder / name)) for name in names]
    if not source.is_file():
        raise ValueError(
            f"There is no folder or file {source}. Give the folder or the archive of bAbI, "
            "tasks_1-20_v1-2.tar.gz, or leave it out (--data-dir) to download bAbI."
        )
    try:
        with tarfile.open(source) as archive:
            members = [f"{_LAYOUT}/{name}" for name in names]
            return [
                (f"{source}:{name}", archive.extractfile(name).read().decode()) for name in members
            ]
    except _ARCHIVE_ERRORS as error:
        raise ValueError(
            f"{source} is not the whole archive of bAbI, tasks_1-20_v1-2.tar.gz: {error}. Get it "
            "again, or give the folder that it was unpacked to."
        ) from error


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no text of a bAbI task: {error}. Get it again.") from error


def download():
    """The path of the official archive in Keras's cache, downloaded and checked."""
    problems = []
    for url in ARCHIVE_URLS:
        try:
            return keras.utils.get_file(
                "tasks_1-20_v1-2.tar.gz",
                origin=url,
                file_hash=ARCHIVE_SHA256,
                hash_algorithm="sha256",
                cache_subdir="datasets",
            )
        except Exception as error:  # of the network, or of the hash
            problems.append(f"{url}: {error}")
    raise ValueError(
        "bAbI could not be downloaded: " + "; ".join(problems) + ". Get tasks_1-20_v1-2.tar.gz by "
        "other means and give its path, or that of the folder it was unpacked to."
    )
