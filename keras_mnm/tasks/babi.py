"""bAbI question answering (§4.2): a story, read word by word, and a question at its end."""

import pathlib
import re
import tarfile
import typing

import keras
import numpy as np

from keras_mnm.tasks.episodes import Episodes
from keras_mnm.validation import integer, number, one_of

TASKS = {
    1: "one supporting fact",
    2: "two supporting facts",
    3: "three supporting facts",
    4: "two argument relations",
    5: "three argument relations",
    6: "yes/no questions",
    7: "counting",
    8: "lists/sets",
    9: "simple negation",
    10: "indefinite knowledge",
    11: "basic coreference",
    12: "conjunction",
    13: "compound coreference",
    14: "time reasoning",
    15: "basic deduction",
    16: "basic induction",
    17: "positional reasoning",
    18: "size reasoning",
    19: "path finding",
    20: "agent's motivation",
}
SPLITS = ("train", "valid", "test")

_WORDS = """
a above afraid after afternoon afterwards and antoine apple are back bathroom bedroom before below
bernhard bigger bill blue bored box brian carrying cat cats chest chocolate chocolates cinema color
container daniel did discarded do does down dropped e east either emily evening fit fits following
football fred frog from garden gave gertrude get give go got grabbed gray green greg hallway handed
he how hungry in inside is jason jeff jessica john journeyed julie julius kitchen left lily lion
longer many mary maybe mice milk morning mouse moved n no none north not nothing objects of office
one or pajamas park passed picked pink put received rectangle red rhino right s sandra school she
sheep south sphere square suitcase sumit swan than that the then there they thirsty this three
tired to took travelled triangle two up w was went west what where white who why will winona wolf
wolves yann yellow yes yesterday you
"""
VOCABULARY = ("", "-", ".", "?", *_WORDS.split())
"""The token of each number: padding, the answers' placeholder, two marks, and 156 words."""
PADDING, PLACEHOLDER = 0, 1
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
_TOKEN = re.compile(r"\w+|[^\w\s]")
_NUMBERS = {token: number for number, token in enumerate(VOCABULARY) if token}


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
        for place, row in enumerate(rows):
            start, end = self.starts[row : row + 2]
            tokens[place, length - (end - start) :] = self.tokens[start:end]
        targets[: len(rows)] = self.answers[rows]
        return tokens, targets


def encode(text):
    """Numbers of the tokens of a text, lower-cased; a ValueError names the words not known.

    >>> from keras_mnm.tasks import babi
    >>> babi.decode(babi.encode("Mary went to the kitchen."))
    'mary went to the kitchen .'
    """
    tokens = _TOKEN.findall(text.lower())
    unknown = sorted({token for token in tokens if token not in _NUMBERS})
    if unknown:
        raise ValueError(
            f"not in the vocabulary: {', '.join(unknown)}. bAbI knows the marks . and ? and 156 "
            "words: keras_mnm.tasks.babi.VOCABULARY."
        )
    return [_NUMBERS[token] for token in tokens]


def decode(tokens):
    """The text of a row of tokens, padding and what is not asked left out."""
    return " ".join(VOCABULARY[token] for token in np.asarray(tokens).ravel() if token > PADDING)


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
        `Questions`, by task and then in the order of the files. A file that is missing, truncated
        or not in the format raises a ValueError that names it.
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
    for task in tasks:
        one_of("tasks", task, TASKS)
    if not tasks:
        raise ValueError("`tasks` must name at least one of the tasks 1 to 20.")
    return tuple(sorted(set(tasks)))


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
        if not digits.isdigit() or int(digits) not in (1, last + 1) or not statement.strip():
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
        path: The file.
        splits: What to pack. Defaults to `("train", "valid")`.
    """
    from keras_mnm.files import replacing

    arrays = {
        f"{split}_{field}": array
        for split in splits
        for field, array in load(source, split)._asdict().items()
    }
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _unpack(path, split, tasks):
    try:
        with np.load(path) as arrays:
            whole = Questions(*(arrays[f"{split}_{field}"] for field in Questions._fields))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} holds no packed bAbI questions of split {split!r}: {error}. Make it again "
            "with keras_mnm.tasks.babi.pack."
        ) from error
    wanted = np.flatnonzero(np.isin(whole.tasks, tasks))
    rows = [whole.tokens[slice(*whole.starts[row : row + 2])] for row in wanted]
    lengths = whole.lengths[wanted]
    return Questions(
        np.concatenate([*rows, whole.tokens[:0]]),
        np.concatenate([[0], np.cumsum(lengths)]),
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
        folder = next((folder for folder in folders if (folder / names[0]).is_file()), None)
        missing = [name for name in names if not (folder and (folder / name).is_file())]
        if missing:
            raise ValueError(
                f"{folder or source} has no {', '.join(missing)}. Expected the folder en-valid-10k "
                "of tasks_1-20_v1-2.tar.gz, or one above it."
            )
        return [(folder / name, _text(folder / name)) for name in names]
    if not source.is_file():
        raise ValueError(
            f"There is no folder or file {source}. Give the folder or the archive of bAbI, "
            "tasks_1-20_v1-2.tar.gz, or leave the path out to download it."
        )
    try:
        with tarfile.open(source) as archive:
            members = [f"{_LAYOUT}/{name}" for name in names]
            return [
                (f"{source}:{name}", archive.extractfile(name).read().decode()) for name in members
            ]
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError, KeyError) as error:
        raise ValueError(
            f"{source} is not the whole archive of bAbI, tasks_1-20_v1-2.tar.gz: {error}. Get it "
            "again, or give the folder that it was unpacked to."
        ) from error


def _text(path):
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
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


def bucket_lengths(lengths, max_waste=0.09):
    """The fewest row lengths to pad to with at most this share of padding.

    Rows are padded to the next of the lengths. For each number of them the best ones are found by
    dynamic programming over the distinct lengths.

    Args:
        lengths: Integers, the rows' lengths.
        max_waste: Share of padding among all tokens. Defaults to `0.09`.

    Returns:
        A sorted list of lengths, the longest row's the last of them.

    Example:

    >>> from keras_mnm.tasks import babi
    >>> babi.bucket_lengths([4, 5, 5, 40, 40], max_waste=0.02)
    [5, 40]
    """
    number("max_waste", max_waste, high=1.0)
    distinct, counts = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    total = np.sum(distinct * counts)
    # tokens[j]: of the rows with the j smallest lengths, padded to as many lengths as the round.
    tokens = np.full(len(distinct) + 1, np.inf)
    tokens[0] = 0.0
    choices = []
    while True:
        # cost[j, i]: the last length is the j-th, and pads the rows from the i-th on.
        cost = tokens[None] + distinct[:, None] * (below[1:, None] - below[None])
        cost[np.arange(len(distinct) + 1)[None] > np.arange(len(distinct))[:, None]] = np.inf
        choices.append(cost.argmin(axis=1))
        tokens = np.concatenate([[np.inf], cost.min(axis=1)])
        if 1.0 - total / tokens[-1] <= max_waste:
            break
    found, j = [], len(distinct)
    for choice in reversed(choices):
        found.append(int(distinct[j - 1]))
        j = choice[j - 1]
    return found[::-1]


class Babi(Episodes):
    """Batches of bAbI questions for `model.fit` and `model.evaluate`, bucketed by length.

    Every question comes once in a pass over the data, in an order drawn for each pass, among
    questions of about its length. Batch `i` of epoch `e` depends on `(seed, e, i)` alone. Where the
    questions of a length do not fill its last batch, they join those of the next length; what is
    missing at the very end are empty rows, in which nothing is asked.

    Args:
        questions: `Questions`, as `load` returns them.
        batch_size: Questions a batch. Defaults to `128`.
        max_tokens: Tokens a batch, at most; the batches of the longest rows have fewer questions.
            Defaults to `32768`.
        lengths: The lengths to pad to. Defaults to `bucket_lengths(questions.lengths)`.
        steps: Batches an epoch. Defaults to those of one pass over the questions.
        **kwargs: More arguments of `Episodes`: `seed`, `first_epoch`, `fixed`.
    """

    def __init__(
        self, questions, batch_size=128, max_tokens=32768, lengths=None, steps=None, **kwargs
    ):
        if not len(questions.tasks):
            raise ValueError("there are no questions to make batches of.")
        self.questions = questions
        self.max_tokens = integer("max_tokens", max_tokens)
        self.lengths = np.array(lengths or bucket_lengths(questions.lengths))
        longest = int(questions.lengths.max())
        if self.lengths.max() < longest or max_tokens < longest:
            raise ValueError(
                f"the longest question has {longest} tokens; `lengths` must reach it and "
                f"`max_tokens` be no less. Received: lengths up to {self.lengths.max()}, "
                f"max_tokens={max_tokens}."
            )
        self._buckets = np.searchsorted(self.lengths, questions.lengths)
        self._order = (None, None)
        super().__init__(batch_size, **kwargs)
        self.batches = len(self._shuffled(0))
        self.steps = integer("steps", steps or self.batches)

    def batch_size_of(self, length):
        """Rows of the batches of this length."""
        return max(1, min(self.batch_size, self.max_tokens // int(length)))

    @property
    def padding_waste(self):
        """Share of padding among the tokens of a pass."""
        tokens = sum(self.batch_size_of(length) * length for length, _ in self._shuffled(0))
        return 1.0 - float(self.questions.starts[-1] / tokens)

    def rows(self, index):
        """The length of batch `index` of this epoch, and the numbers of its questions."""
        turn, place = divmod(self.epoch * self.steps + index, self.batches)
        if self._order[0] != turn:
            self._order = (turn, self._shuffled(turn))
        return self._order[1][place]

    def __getitem__(self, index):
        length, rows = self.rows(index)
        return self.questions.batch(rows, self.batch_size_of(length), length)

    def _shuffled(self, turn):
        """The batches of a pass: pairs of a length and the numbers of questions."""
        rng = np.random.default_rng((self.seed, turn))
        batches, rest = [], np.empty(0, int)
        for bucket, length in enumerate(map(int, self.lengths)):
            own = rng.permutation(np.flatnonzero(self._buckets == bucket))
            rows, size = np.concatenate([rest, own]), self.batch_size_of(length)
            is_last = bucket == len(self.lengths) - 1
            end = len(rows) if is_last else len(rows) // size * size
            batches += [(length, rows[i : i + size]) for i in range(0, end, size)]
            rest = rows[end:]
        return [batches[i] for i in rng.permutation(len(batches))]
