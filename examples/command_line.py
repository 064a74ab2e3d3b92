"""The command line that the examples share. Imports nothing heavy: it chooses Keras's backend."""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import tempfile

LABELS = {
    "mnm-p": "MNM-p (local writes)",
    "mnm-g": "MNM-g (gradient writes)",
    "lstm-salu": "LSTM+SALU",
    "lstm": "LSTM",
    "plastic": "plastic RNN (learned plasticities)",
    "homogeneous-plastic": "plastic RNN (one plasticity)",
    "random": "random steps",
}
"""What people read of a model; the pictures have its colors in this order."""

MODELS = ("mnm-p", "mnm-g", "lstm-salu", "lstm")
"""What `--model` takes."""

MAZE_MODELS = ("mnm-p", "mnm-g", "lstm", "plastic", "homogeneous-plastic", "random")
"""The same in the maze."""

STEPS_PER_EPOCH = 100
"""Updates between two checkpoints."""

SCHEDULE = "cosine to 1/20"
"""How the learning rate falls, of every run."""

LAYER_OPTIONS = {
    "meta_loss_weight": 1.0,
    "step_size": None,
    "num_heads": None,
    "memory_units": None,
    "memory_gain": 1.0,
    "rate_per_layer": False,
}
"""What the command line can change in a model's layer, as it is by default (None: by the task)."""

OPTIONS_OF_BASELINES = {"lstm-salu": {"num_heads", "memory_units"}, "lstm": set()}
"""Those of them that a baseline has, too."""


def steps_per_epoch(settings):
    """Updates between two checkpoints of a run with these settings."""
    return settings.get("steps_per_epoch", min(STEPS_PER_EPOCH, settings["steps"]))


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the description, and shows the defaults that there are."""

    def _get_help_string(self, action):
        nothing = action.nargs == 0 or action.default in (None, [])  # a flag's default is known
        return action.help if nothing else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers a mistake with one sentence."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"error: {message}\n")

    @contextlib.contextmanager
    def answering(self):
        """Within, what cannot be done is answered so, too, and Ctrl-C ends without a traceback."""
        try:
            yield
        except (OSError, ValueError) as error:
            self.error(str(error))
        except KeyboardInterrupt:
            self.exit(130, "\nInterrupted.\n")


def training_parser(description, **defaults):
    """A parser with the options of every example that trains."""
    parser = Parser(description=description)
    train = parser.add_argument_group("training")
    train.add_argument(
        "--model",
        choices=MODELS,
        default="mnm-p",
        help="MNM with local (mnm-p) or gradient writes (mnm-g), or one of the paper's baselines",
    )
    train.add_argument(
        "--steps",
        type=positive_int,
        help="updates at most, rounded up to whole epochs; four epochs without a mistake end a run "
        "(bAbI: see --patience); by default what the instance needs",
    )
    train.add_argument(
        "--batch-size", type=positive_int, help="episodes (bAbI: questions) an update"
    )
    train.add_argument(
        "--steps-per-epoch",
        type=positive_int,
        help="updates between two checkpoints, an epoch; epochs of another length draw other "
        "episodes",
    )
    train.add_argument(
        "--meta-loss-weight",
        type=positive_float,
        default=LAYER_OPTIONS["meta_loss_weight"],
        help="of the meta objective (Eq. 5) beside the task's loss, for mnm-p and mnm-g",
    )
    train.add_argument(
        "--step-size",
        type=positive_float,
        help="η of the writes, for mnm-p and mnm-g; by default 2 / (H D), 0.02 with one head and "
        "100 units, 0.0067 with the three of bAbI",
    )
    train.add_argument(
        "--num-heads",
        type=positive_int,
        help="H, pairs read and written at each step, for all but lstm; by default as in the "
        "paper, 3 for bAbI and 1 elsewhere",
    )
    train.add_argument(
        "--memory-units",
        type=positive_int,
        help="D, the size of keys and values, for all but lstm; by default 100, as in the paper",
    )
    train.add_argument(
        "--memory-gain",
        type=positive_float,
        default=LAYER_OPTIONS["memory_gain"],
        help="of φ_0, the empty memory, for mnm-p and mnm-g: its layers are orthogonal, times that",
    )
    train.add_argument(
        "--rate-per-layer",
        action="store_true",
        help="a rate of its own for each layer of the memory, for mnm-p and mnm-g",
    )
    add_run_options(train)
    parser.add_argument(
        "--seed",
        type=non_negative_int,
        default=0,
        help="of the weights and the training episodes, and of the fresh ones",
    )
    add_backend_option(parser, "tensorflow", "jax", "torch")
    parser.add_argument(
        "--evaluate",
        metavar="MODEL_OR_PRESET",
        help="instead of training, evaluate a .keras file, the folder of a run, or a preset; the "
        "last line printed is JSON; options of training are left aside, sizes are the model's",
    )
    parser.set_defaults(**defaults)
    return parser


def layer_options(args):
    """What is not as by default in the model's layer; a ValueError where it makes no use of it."""
    given = {name: getattr(args, name) for name in LAYER_OPTIONS}
    options = {name: value for name, value in given.items() if value != LAYER_OPTIONS[name]}
    refused = options.keys() - OPTIONS_OF_BASELINES.get(args.model, options.keys())
    if refused:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(refused))
        raise ValueError(f"{args.model} makes no use of {names}; leave it out with {args.model}")
    if args.start_from and "memory_gain" in options:
        raise ValueError(
            "φ_0 is among the weights of --start-from; leave --memory-gain out with it"
        )
    return options


def add_run_options(group):
    """Adds what every run that trains has: its start, its rate, its folder, when to stop."""
    group.add_argument(
        "--start-from",
        metavar="MODEL_OR_PRESET",
        help="begin with these weights, as of an easier instance, instead of fresh ones; mnm-g can "
        "take those of mnm-p",
    )
    group.add_argument(
        "--learning-rate",
        type=positive_float,
        help="of Adam at the start; falls to a twentieth on a cosine",
    )
    group.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of the results; by default runs/TASK-MODEL-seedSEED",
    )
    group.add_argument(
        "--minutes",
        type=positive_float,
        help="stop after that time, at the next checkpoint, to be continued with --resume",
    )
    group.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder"
    )


def add_backend_option(parser, *names):
    """Adds `--backend`, by default what the environment variable of Keras says."""

    def known(name):  # unlike `choices`, asked about the default, too
        if name not in names:
            expected = ", ".join(names)
            raise argparse.ArgumentTypeError(
                f"expected one of {expected}, received {name!r} (by default the environment "
                "variable KERAS_BACKEND)"
            )
        return name

    parser.add_argument(
        "--backend",
        type=known,
        metavar="{" + ",".join(names) + "}",
        default=os.environ.get("KERAS_BACKEND", "tensorflow"),
        help="of Keras",
    )


def use_backend(parser, name):
    """Sets Keras's backend, and stops with a sentence where it is not installed."""
    check_installed(parser, name, None if name == "tensorflow" else name)
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keeps the progress bar readable


def check_installed(parser, package, extra):
    """Stops with a sentence where a package of the project, or of an extra of it, is missing."""
    if importlib.util.find_spec(package) is None:
        words = ('".[{extra}]"', "--extra {extra} ") if extra else (".", "")
        install, option = (word.format(extra=extra) for word in words)
        parser.error(
            f"{package} is not installed; in the clone run pip install {install}, or the example "
            f"by uv run {option}python"
        )


def check_writable(parser, folder):
    """Makes the output folder, and stops with a sentence where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        parser.error(f"cannot write to the output folder {folder} ({reason}); choose another")


def positive_int(text):
    return _number(text, int, lambda n: n > 0, "a positive integer")


def non_negative_int(text):
    return _number(text, int, lambda n: n >= 0, "an integer of at least 0")


def positive_float(text):
    return _number(text, float, lambda n: 0 < n < float("inf"), "a positive number")


def non_negative_float(text):
    return _number(text, float, lambda n: 0 <= n < float("inf"), "a number of at least 0")


def positive_share(text):
    return _number(text, float, lambda n: 0 < n <= 1, "a number above 0 and up to 1")


def _number(text, kind, accepts, expected):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not accepts(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return number
