"""bAbI (§4.2, Tables 1 and 3): answer questions about stories, word by word, twenty tasks at once.

python examples/babi.py --data-dir tasks_1-20_v1-2
python examples/babi.py --data-dir tasks_1-20_v1-2 --tasks 1,2,16 --steps 3000
python examples/babi.py --evaluate runs/babi-mnm-p-seed0 --data-dir tasks_1-20_v1-2 --split valid
python examples/babi.py --evaluate runs/babi-mnm-p-seed0 \\
  --ask "Mary went to the kitchen. John took the milk. Where is Mary?"
"""

import argparse
import functools
import hashlib
import json

import experiment
from command_line import positive_int, positive_share
from markdown_table import markdown_table

FAILED = 5.0
"""A task with a larger error, in %, counts as failed."""

PAPER = {
    "mnm-p": (0, 0.1, 0.9, 0, 0.3, 0, 0.3, 0, 0, 0, 0, 0, 0, 0.1, 0, 0.7, 0, 0.2, 0.9, 0),
    "mnm-g": (0, 0.2, 1.8, 0, 0.4, 0, 0.2, 0.2, 0, 0.1, 0, 0, 0, 0.5, 0, 51.2, 0, 0, 0.7, 0),
}
"""The paper's best runs on the test files, error in % by task (Table 3)."""


class Babi(experiment.Task):
    name = "babi"
    title = "bAbI question answering"
    batch_size = 128
    learning_rate = 1e-3
    steps_per_epoch = 20

    def add_options(self, group):
        group.add_argument(
            "--data-dir",
            metavar="PATH",
            help="folder or archive of bAbI, or a packed .npz; by default the official archive is "
            "downloaded",
        )
        group.add_argument(
            "--tasks",
            type=_task_numbers,
            metavar="1,2,16",
            help="to train or evaluate on; by default all twenty",
        )
        group.add_argument(
            "--max-tokens",
            type=positive_int,
            default=32768,
            help="tokens a batch at most, padding included: less needs less memory",
        )
        group.add_argument(
            "--max-padding",
            type=positive_share,
            metavar="SHARE",
            help="of padding among the tokens of a pass (without --repeat) that is accepted: the "
            "more, the fewer lengths of batches there are to compile; by default 0.09",
        )
        group.add_argument(
            "--repeat",
            type=_task_counts,
            metavar="16:10,17:3",
            help="how often a pass over the training files has the questions of a task, by default "
            "once",
        )
        group.add_argument(
            "--exchange-words",
            action="store_true",
            default=None,  # as in the settings of older runs
            help="exchange words of one kind in the training stories (names, places, colors and "
            "the like), at random, a question at a time",
        )
        group.add_argument(
            "--validate-every",
            type=positive_int,
            default=1000,
            metavar="UPDATES",
            help="between two looks at the validation files, in whole epochs",
        )
        group.add_argument(
            "--patience",
            type=positive_int,
            default=10,
            help="looks at the validation files without a new best before training ends",
        )

    def add_evaluation_options(self, group):
        group.add_argument(
            "--split", choices=("valid", "test", "train"), default="valid", help="files to use"
        )
        group.add_argument(
            "--ask",
            metavar="STORY_AND_QUESTION",
            help="with --evaluate: answer this one, and nothing else",
        )
        group.add_argument(
            "--answers",
            type=int,
            choices=(1, 2, 3),
            default=1,
            help="words of the answer to --ask: lists and paths have two or three",
        )

    def instance(self, args):
        if args.ask is not None:
            raise ValueError("name the model to --ask by --evaluate: a run's folder, or a preset.")
        tasks = list(_chosen(args.tasks))
        questions = _load(args.data_dir, "train", tuple(tasks))
        _batches(args, args.split, tasks, fixed=True)  # measured at the end: better told now
        for task, _ in args.repeat or ():
            if task not in tasks:
                raise ValueError(f"--repeat names task {task}, which is not trained on.")
        content = hashlib.sha256(questions.tokens.tobytes() + questions.answers.tobytes())
        return {
            "tasks": tasks,
            "questions": len(questions.tasks),
            "questions_sha256": content.hexdigest(),
            "max_tokens": args.max_tokens,
            "max_padding": args.max_padding,
            "repeat": args.repeat,
            "exchange_words": args.exchange_words,
            "validate_every": args.validate_every,
            "patience": args.patience,
        }

    def measuring_options(self, settings):
        names = ("tasks", "batch_size", "max_tokens", "max_padding")
        return {name: settings.get(name) for name in names}

    def instance_of(self, model):
        from keras_mnm.tasks import babi

        shapes = experiment.shapes_of(model)
        if shapes != ((None, None), (None, None, len(babi.VOCABULARY))):
            raise ValueError(
                f"the model maps {shapes[0]} to {shapes[1]}; expected one of bAbI question "
                f"answering, (batch, None) tokens to (batch, None, {len(babi.VOCABULARY)}) logits"
            )
        return {}

    def instance_name(self, instance):
        tasks = instance["tasks"]
        return self.name if len(tasks) == 20 else f"{self.name}-{'-'.join(map(str, tasks))}"

    def steps(self, instance):
        return 60_000 if len(instance["tasks"]) > 3 else 5_000 * len(instance["tasks"])

    def training_data(self, instance, args, steps):
        return _batches(
            args,
            "train",
            instance["tasks"],
            steps=steps,
            seed=args.seed,
            repeat=dict(instance.get("repeat") or ()),
            exchange_words=instance.get("exchange_words"),
        )

    def validation(self, instance, args):
        from trainer import Validation

        data = _batches(args, "valid", instance["tasks"], fixed=True)
        every = -(-args.validate_every // args.steps_per_epoch)
        return Validation(data, every, "sequence_accuracy")

    def recurrent_layer(self, name, num_heads=3, **options):
        return experiment.recurrent_layer(name, units=256, num_heads=num_heads, **options)

    def make_model(self, instance, recurrent):
        import keras_mnm
        from keras_mnm.tasks import babi

        return keras_mnm.token_model(
            recurrent,
            len(babi.VOCABULARY),
            None,
            babi.MAX_ANSWERS,
            embedding_units=256,
            mask_zero=True,
        )

    def loss_and_metrics(self):
        import keras

        import keras_mnm
        from keras_mnm.tasks import babi

        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=babi.NOT_ASKED
        )
        return loss, [keras_mnm.SequenceAccuracy()]

    def is_done(self, instance, history):
        best, looks_since = -1.0, 0
        for value in history.get("val_sequence_accuracy", ()):
            if value is not None:
                best, looks_since = max(value, best), 0 if value > best else looks_since + 1
        return looks_since >= instance["patience"]

    def evaluate(self, model, args):
        if args.ask is None and args.answers > 1:
            raise ValueError("--answers is for --ask; leave it out.")
        if args.ask is not None:
            answer(model, args.ask, args.answers)
        else:
            print(json.dumps(self.measure(model, args)))

    def measure(self, model, args):
        data = _batches(args, args.split, _chosen(args.tasks), fixed=True)
        questions = data.questions
        print(f"Measuring on {len(questions.tasks):,} questions, files {args.split}", flush=True)
        wrong = wrong_answers(model, data)
        errors = {
            int(task): round(100.0 * float(wrong[questions.tasks == task].mean()), 4)
            for task in sorted(set(questions.tasks))
        }
        print(table(errors))
        return {
            "mean_error": round(sum(errors.values()) / len(errors), 4),
            "failed_tasks": sum(error > FAILED for error in errors.values()),
            "error_per_task": errors,
            "split": args.split,
            "questions": len(wrong),
        }

    def write_results(self, figures, folder, title):
        from keras_mnm.files import replacing

        errors = figures["error_per_task"]
        with replacing(folder / "errors.md") as path:
            path.write_text(f"# {title}, {figures['split']} files\n\n{table(errors)}\n")
        draw(errors, folder / "errors.png", f"{title}, {figures['split']} files")

    def demonstrate(self, model, args):
        """Nothing more than the table that `measure` prints."""


def wrong_answers(model, data):
    """Whether a model answers each question of a `Babi` wrong, in any of the answer's words."""
    import keras
    import numpy as np

    from keras_mnm.tasks import babi

    wrong = np.zeros(len(data.questions.tasks), bool)
    progress = keras.utils.Progbar(len(data), unit_name="batch")
    for index in range(len(data)):
        _, rows = data.rows(index)
        tokens, targets = data[index]
        found = model.predict_on_batch(tokens).argmax(-1)
        mistakes = (found != targets) & (targets != babi.NOT_ASKED)
        wrong[rows] = mistakes.any(axis=-1)[: len(rows)]
        progress.update(index + 1)
    return wrong


def table(errors):
    """Errors by task beside those of the paper's best runs, in Markdown (Table 3)."""
    from keras_mnm.tasks import babi

    columns = {"error %": errors}
    for name, best in PAPER.items():
        columns[f"paper's best {name}, test files"] = dict(zip(babi.TASKS, best, strict=True))
    rows = [
        [f"{task}: {babi.TASKS[task]}", *(f"{c[task]:.1f}" for c in columns.values())]
        for task in errors
    ]
    means = [sum(c[task] for task in errors) / len(errors) for c in columns.values()]
    failed = [sum(c[task] > FAILED for task in errors) for c in columns.values()]
    rows.append(["mean error", *(f"{mean:.2f}" for mean in means)])
    rows.append([f"failed tasks (> {FAILED:g} %)", *failed])
    return markdown_table(["task", *columns], rows)


def draw(errors, path, title):
    """A bar for each task's error, into a PNG file."""
    from matplotlib.figure import Figure

    from keras_mnm.files import save_figure
    from keras_mnm.tasks import babi

    figure = Figure(figsize=(8, 1.2 + 0.28 * len(errors)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{task}: {babi.TASKS[task]}" for task in errors]
    colors = ["tab:red" if error > FAILED else "tab:blue" for error in errors.values()]
    bars = axes.barh(labels, errors.values(), color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.axvline(FAILED, color="gray", linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("error, %  (dashed: what counts as failed)")
    axes.set_title(f"{title}: mean error {sum(errors.values()) / len(errors):.2f} %")
    save_figure(figure, path)


def read_question(text, answers=1):
    """The tokens of a story with a question at its end, and of placeholders for its answer."""
    from keras_mnm.tasks import babi

    tokens = babi.encode(text)
    if not tokens or babi.VOCABULARY[tokens[-1]] != "?":
        raise ValueError(
            "end the story with a question, and that with a question mark; received "
            f"{text[-60:]!r}."
        )
    if babi.VOCABULARY.index(".") not in tokens and "\n" not in text.strip():
        raise ValueError(f"give a story before the question; received {text[-60:]!r}.")
    return [*tokens, *[babi.PLACEHOLDER] * answers]


def answer(model, text, answers=1):
    """Prints the answer to a story with a question at its end, a line a word."""
    import numpy as np

    from keras_mnm.tasks import babi

    tokens = np.array([read_question(text, answers)])
    for scores in model.predict(tokens, verbose=0)[0, -answers:]:
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        first, *others = chances.argsort()[::-1][:3]
        more = ", ".join(f"{babi.VOCABULARY[token]} {chances[token]:.0%}" for token in others)
        print(f"{babi.VOCABULARY[first]} ({chances[first]:.0%}; then {more})")


@functools.cache
def _load(data_dir, split, tasks):
    from keras_mnm.tasks import babi

    return babi.load(data_dir, split, tasks)


def _batches(args, split, tasks, **options):
    from keras_mnm.tasks import babi

    questions = _load(args.data_dir, split, tuple(tasks))
    lengths = args.max_padding and babi.bucket_lengths(questions.lengths, args.max_padding)
    return babi.Babi(questions, args.batch_size, args.max_tokens, lengths, **options)


def _chosen(tasks):
    """The tasks of the command line in ascending order, by default all."""
    from keras_mnm.tasks import babi

    return babi.check_tasks(tasks or babi.TASKS)


def _task_numbers(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between them, as 1,2,16; received {text!r}"
        ) from None


def _task_counts(text):
    """`"17:3,16:10"` as `[[16, 10], [17, 3]]`, in which form JSON gives it back."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        counts = sorted([int(task), positive_int(count)] for task, count in pairs)
        if len(dict(counts)) < len(counts):
            raise ValueError
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"expected each task once with a count of at least 1, as 16:10,17:3; received {text!r}"
        ) from None
    return counts


TASK = Babi()


def main(arguments=None):
    experiment.main(TASK, __doc__, arguments)


if __name__ == "__main__":
    main()
