"""What the examples do with a task: train a model of it, or evaluate one, by the command line.

Imports nothing heavy: the command line chooses Keras's backend first.
"""

import functools
import importlib
import itertools
import json
import pathlib

import command_line
from command_line import check_installed, check_writable, training_parser, use_backend

EXAMPLES = {
    "dictionary": "dictionary_inference",
    "double-copy": "double_copy",
    "priority-sort": "priority_sort",
    "babi": "babi",
    "maze": "maze_a2c",
}
"""The example of each task; its module has a `TASK`."""

FRESH_EPOCH = 10**9
"""An epoch of the task's stream that no training run draws from."""

SOLVED_EPOCHS = 4
"""Epochs in a row without any mistake that end a run."""

START = "started_from.json"
"""The account of the weights that a run began with, in its folder."""


class Task:
    """A task as an example trains it.

    A subclass has the attributes and methods below; `instance` is a dict of sizes and the like,
    which is a part of a run's `settings`; `args` are what the command line said.
    """

    name = ""
    """What results and presets are called by."""

    title = ""
    """What people read."""

    batch_size = 32
    learning_rate = 3e-3
    steps_per_epoch = command_line.STEPS_PER_EPOCH
    """Updates between two checkpoints."""

    def add_options(self, group):
        """Adds the options that choose an instance to an argparse group."""

    def add_evaluation_options(self, group):
        """Adds the options that choose what a model is measured on."""
        group.add_argument(
            "--episodes", type=command_line.positive_int, default=2000, help="fresh ones"
        )

    def instance(self, args):
        """The instance that the options choose, or a ValueError where there is none."""
        return {}

    def measuring_options(self, settings):
        """What `measure` needs to be told of a run's settings, as a dict of options."""
        return {}

    def instance_of(self, model):
        """The instance that a model was made for, or a ValueError where it is of another task."""
        raise NotImplementedError

    def instance_name(self, instance):
        """`name` with the instance."""
        return self.name

    def steps(self, instance):
        """Updates at most, by default."""
        raise NotImplementedError

    def episodes(self, instance, **options):
        """The task's `keras_mnm.tasks.Episodes`."""
        raise NotImplementedError

    def training_data(self, instance, args, steps):
        """What to train on, `steps` batches an epoch."""
        return self.episodes(instance, batch_size=args.batch_size, steps=steps, seed=args.seed)

    def validation(self, instance, args):
        """A `trainer.Validation`, or None where every episode is a fresh one."""
        return None

    def recurrent_layer(self, name, **options):
        """The layer that `--model` names, in the paper's sizes, with more options of its own."""
        return recurrent_layer(name, units=100, **options)

    def make_model(self, instance, recurrent):
        """A model around a recurrent layer."""
        raise NotImplementedError

    def loss_and_metrics(self):
        """What the model is compiled with."""
        raise NotImplementedError

    def solved(self, logs):
        """Whether an epoch with these logs was without any mistake."""
        raise NotImplementedError

    def is_done(self, instance, history):
        """Whether training ends early: after some epochs in a row without any mistake."""
        epochs = [
            dict(zip(history, logs, strict=True)) for logs in zip(*history.values(), strict=True)
        ]
        last = epochs[-SOLVED_EPOCHS:]
        return len(last) == SOLVED_EPOCHS and all(map(self.solved, last))

    def evaluate(self, model, args):
        """Prints what a model does, and its figures as JSON."""
        self.demonstrate(model, args)
        print(json.dumps(self.measure(model, args)))

    def measure(self, model, args):
        """What a model is worth on fresh episodes, as a dict for JSON."""
        inputs, targets = self.fresh_episodes(model, args.episodes, args.seed)
        outputs = model.predict(inputs, batch_size=250, verbose=0)
        figures = self.figures(outputs, targets)
        return {**figures, "episodes": args.episodes, "evaluation_seed": args.seed}

    def figures(self, outputs, targets):
        """What a model's outputs are worth, as a dict of floats."""
        raise NotImplementedError

    def write_results(self, figures, folder, title):
        """Writes what people want to see of the figures beside `metrics.json`."""

    def demonstrate(self, model, args):
        """Prints a few episodes with the model's answers."""
        inputs, targets = self.fresh_episodes(model, 4, args.seed)
        self.show(inputs, targets, model.predict(inputs, verbose=0))

    def show(self, inputs, targets, outputs):
        """Prints some episodes with the model's answers."""
        raise NotImplementedError

    def fresh_episodes(self, model, count, seed):
        """Inputs and targets of episodes that no training run has seen."""
        options = {"batch_size": count, "steps": 1, "seed": seed, "first_epoch": FRESH_EPOCH}
        return self.episodes(self.instance_of(model), **options)[0]


class TokenTask(Task):
    """A task with one right token at each step that is answered."""

    def loss_and_metrics(self):
        import keras

        import keras_mnm

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
        return loss, [accuracy, keras_mnm.SequenceAccuracy()]

    def solved(self, logs):
        return logs["sequence_accuracy"] == 1.0

    def figures(self, outputs, targets):
        right = outputs.argmax(-1) == targets
        return {
            "symbol_accuracy": float(right.mean()),
            "sequence_accuracy": float(right.all(axis=1).mean()),
        }


def shapes_of(model):
    """The input's and the output's shape of a model; a ValueError where it has none."""
    try:
        return model.input_shape, model.output_shape
    except AttributeError as error:
        raise ValueError(
            f"{model!r} has no input and output shape; expected a model of this task, evaluate "
            "another one with the example of its own"
        ) from error


def is_token_model(model):
    """Whether a model maps tokens `[B, T]` to logits `[B, l, n]`, with all sizes known."""
    shapes = shapes_of(model)
    return [len(shape) for shape in shapes] == [2, 3] and all(
        isinstance(size, int) for shape in shapes for size in shape[1:]
    )


def recurrent_layer(name, units, num_heads=1, memory_units=100, memory_gain=1.0, **options):
    """A layer with the paper's memory (Table 2), three layers of 100 units, but for the options."""
    import keras

    import keras_mnm

    options["return_sequences"] = True
    if name == "lstm":
        # cuDNN takes no rows that are padded on the left.
        return keras.layers.LSTM(units, use_cudnn=False, name="lstm", **options)
    if name == "lstm-salu":
        return keras_mnm.SALU(units, memory_units, num_heads, name="salu", **options)
    options["write_rule"] = {"mnm-p": "local", "mnm-g": "gradient"}[name]
    # By its configuration, with which the layer draws its seed in the order of the default.
    options["memory_initializer"] = {"class_name": "Orthogonal", "config": {"gain": memory_gain}}
    return keras_mnm.MNM(units, memory_units, num_heads, name="mnm", **options)


def main(task, description, arguments=None):
    """The whole example."""
    parser = training_parser(
        description,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        steps_per_epoch=task.steps_per_epoch,
    )
    task.add_options(parser.add_argument_group("task"))
    task.add_evaluation_options(parser.add_argument_group("evaluation, after training or instead"))
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    with parser.answering():
        if args.evaluate:
            evaluate(task, args.evaluate, args)
        else:
            train(task, args, parser)


def train(task, args, parser):
    instance = task.instance(args)
    name = f"{task.instance_name(instance)}-{args.model}"
    steps = args.steps or task.steps(instance)
    if steps > args.steps_per_epoch:
        steps += -steps % args.steps_per_epoch
    settings = {
        "task": task.name,
        **instance,
        "model": args.model,
        "steps": steps,
        "steps_per_epoch": min(args.steps_per_epoch, steps),
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "schedule": command_line.SCHEDULE,
        "seed": args.seed,
        "start_from": args.start_from,
    }
    options = command_line.layer_options(args)
    settings.update(options)
    folder = args.output or pathlib.Path("runs") / f"{name}-seed{args.seed}"
    check_installed(parser, "matplotlib", "viz")

    import keras
    from trainer import Run, compile_model

    run = Run(folder, settings, functools.partial(task.is_done, instance))
    run.open(args.resume)
    keras.utils.set_random_seed(args.seed)
    model = task.make_model(instance, task.recurrent_layer(args.model, **options))
    begin(model, folder, args, parser, options.get("step_size"))
    compile_model(model, args.learning_rate, settings["steps"], *task.loss_and_metrics())
    print(
        f"Training {name} with {model.count_params():,} parameters, at most "
        f"{settings['steps']:,} updates of {args.batch_size} episodes; results in {folder}/"
    )
    data = task.training_data(instance, args, run.steps_per_epoch)
    validation = task.validation(instance, args)
    with run.running():
        if not args.resume:
            write_start(folder, args.start_from)
        model = run.train_or_tell(model, data, validation, minutes=args.minutes)
        if model is None:
            return
        figures = task.measure(model, args)
        title = f"{name}, seed {args.seed}"
        task.write_results(figures, folder, title)
        run.finish(model, title, figures)
    task.demonstrate(model, args)
    print(f"Model, curve, history and metrics are in {folder}/")
    print(json.dumps(figures))


def evaluate(task, name, args):
    model = open_model(name)
    sizes = ", ".join(f"{key} {value}" for key, value in task.instance_of(model).items())
    print(f"{name}: {task.title}" + (f" ({sizes})" if sizes else ""))
    task.evaluate(model, args)


def open_model(name):
    """A model by its file, by its run's folder, or by its preset's name."""
    import keras_mnm
    from keras_mnm.files import load_model

    path = pathlib.Path(name)
    if path.suffix == ".keras" or path.is_file():
        return load_model(path)
    if path.name != name and not path.exists():
        raise ValueError(f"there is no file or folder {name}")
    if path.is_dir():
        return load_model(model_of(path))
    try:
        return keras_mnm.from_preset(name)
    except ValueError as error:
        run = pathlib.Path("runs", name)
        if not run.is_dir():
            raise
        raise ValueError(f"{error} (Give the folder of a run by its path, as {run}.)") from error


def model_of(run):
    """The file with the best model that a run's folder has, finished or not."""
    names = ("model.keras", "best.keras", "checkpoint.keras")
    return next((run / name for name in names if (run / name).exists()), run / names[0])


def begin(model, folder, args, parser, step_size=None):
    """Gives a run's model the weights to begin with, and makes its folder.

    A `step_size` is one that was asked for, see `take_weights`.
    """
    if args.start_from and not args.resume:
        take_weights(model, args.start_from, step_size)
    check_writable(parser, folder)


def take_weights(model, name, step_size=None):
    """Gives `model` the weights of another one of the same sizes.

    Those of a model with local writes fit one with gradient writes, which leaves out the feedback
    prediction functions. Rates are trained for their step size, which stays unless a new
    `step_size` was asked for.
    """
    other = open_model(name)
    weights = other.weights
    if any(cell.feedback is None for cell in _memory_cells(model)):
        layers = [cell.feedback for cell in _memory_cells(other) if cell.feedback]
        left_out = {id(weight) for layer in layers for weight in layer.weights}
        weights = [weight for weight in weights if id(weight) not in left_out]
    both = [[(w.path, tuple(w.shape)) for w in each] for each in (weights, model.weights)]
    pairs = itertools.zip_longest(*both, fillvalue=("no weight", "left"))
    for (their_path, their_shape), (path, shape) in pairs:
        if their_shape != shape:
            raise ValueError(
                f"{name} has {their_path} {their_shape} where this model has {path} {shape}; start "
                "from a model of the same kind, by task, --model and sizes"
            )
    theirs, ours = _step_sizes(other), _step_sizes(model)
    if step_size is None and theirs != ours:
        raise ValueError(
            f"the weights of {name} were trained with a step size of {theirs[0]:g}, and this model "
            f"has {ours[0]:g}; keep it with --step-size {theirs[0]:g}, where the example has that "
            "option, or give another on purpose"
        )
    model.set_weights([weight.numpy() for weight in weights])


def _memory_cells(model):
    import keras_mnm

    return [layer.cell for layer in model.layers if isinstance(layer, keras_mnm.MNM)]


def _step_sizes(model):
    """η of each memory of a model."""
    return [cell.memory.step_size_for(cell.num_heads) for cell in _memory_cells(model)]


def write_start(folder, name):
    """Keeps how the weights that a run begins with were trained, if that is known."""
    from keras_mnm.files import write_json

    (folder / START).unlink(missing_ok=True)  # of a run that kept no checkpoint
    account = name and account_behind(name)
    if account:
        write_json(folder / START, account, indent=None)


def account_behind(name):
    """The account of a model by its file, its run's folder or its preset's name, or None."""
    import keras_mnm

    path, source = pathlib.Path(name), None
    if path.exists():
        folder = (path if path.is_dir() else path.parent).resolve()
        if all((folder / file).exists() for file in ("settings.json", "history.json")):
            return account_of(folder)
        if not (folder / "preset.json").exists():
            return None
        source, name = folder.parent, folder.name
    return keras_mnm.list_presets(source).get(name, {}).get("training")


def task_of(settings):
    """The `Task` of a run with these settings; a ValueError where no example has it."""
    if settings.get("task") not in EXAMPLES:
        known = ", ".join(EXAMPLES)
        raise ValueError(f"no example has the task {settings.get('task')!r}; known: {known}")
    return importlib.import_module(EXAMPLES[settings["task"]]).TASK


def updates_by_epoch(settings, epochs):
    """The updates done by the end of each epoch of a run; the last one may have fewer."""
    steps = command_line.steps_per_epoch(settings)
    return [min(n * steps, settings["steps"]) for n in range(1, epochs + 1)]


def account_of(run):
    """How a run was trained and fared, and before it the run whose weights it began with.

    A ValueError that names the run where it cannot be read.
    """
    try:
        return _read_account(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        kind = type(error).__name__
        raise ValueError(f"{run} holds no run to tell of: {kind}: {error}") from error


def _read_account(run):
    history = json.loads((run / "history.json").read_text())
    names = ("command", "settings", "updates", "versions", "machine")
    if (run / "metrics.json").exists():
        figures = json.loads((run / "metrics.json").read_text())
        account = {**{name: figures.pop(name) for name in names}, "figures": figures}
    else:  # ended before its time
        settings = json.loads((run / "settings.json").read_text())
        updates = updates_by_epoch(settings, len(history["seconds"]))[-1]
        account = {"settings": settings, "updates": updates, **history["origin"]}
    account["seconds"] = history["seconds"]
    account["history"] = {
        name: [value if value is None else round(value, 6) for value in values]
        for name, values in history["history"].items()
    }
    if (run / START).exists():
        account["started_from"] = json.loads((run / START).read_text())
    return account


def stages(account):
    """The account of a run, and those of the runs before it."""
    while account:
        yield account
        account = account.get("started_from")
