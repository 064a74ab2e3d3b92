"""What the examples do with a task: train a model of it, or evaluate one, by the command line.

Imports nothing heavy: the command line chooses Keras's backend first.
"""

import importlib
import json
import pathlib

import command_line
from command_line import check_installed, check_writable, training_parser, use_backend

EXAMPLES = {
    "dictionary": "dictionary_inference",
    "double-copy": "double_copy",
    "priority-sort": "priority_sort",
    "maze": "maze_a2c",
}
"""The example of each task; its module has a `TASK`."""

FRESH_EPOCH = 10**9
"""An epoch of the task's stream that no training run draws from."""


class Task:
    """A task as an example trains it.

    A subclass has the attributes and methods below; `settings` is a dict that tells the instance.
    """

    name = ""
    """What results and presets are called by."""

    title = ""
    """What people read."""

    def add_options(self, group):
        """Adds the options that choose an instance to an argparse group."""

    def settings(self, args):
        """The instance that the options choose, or a ValueError where there is none."""
        return {}

    def settings_of(self, model):
        """The instance that a model was made for, or a ValueError where it is of another task."""
        raise NotImplementedError

    def instance_name(self, settings):
        """`name` with the instance."""
        return self.name

    def steps(self, settings):
        """Updates at most, by default."""
        raise NotImplementedError

    def episodes(self, settings, **options):
        """The task's `keras_mnm.tasks.Episodes`."""
        raise NotImplementedError

    def make_model(self, settings, recurrent):
        """A model around a recurrent layer."""
        raise NotImplementedError

    def loss_and_metrics(self):
        """What the model is compiled with."""
        raise NotImplementedError

    def solved(self, logs):
        """Whether an epoch with these logs was without any mistake."""
        raise NotImplementedError

    def figures(self, outputs, targets):
        """What a model's outputs are worth, as a dict of floats."""
        raise NotImplementedError

    def measure(self, model, episodes, seed):
        """What a model is worth on fresh episodes, as a dict."""
        inputs, targets = fresh_episodes(self, model, episodes, seed)
        outputs = model.predict(inputs, batch_size=250, verbose=0)
        figures = self.figures(outputs, targets)
        return {**figures, "episodes": episodes, "evaluation_seed": seed}

    def show(self, inputs, targets, outputs):
        """Prints some episodes with the model's answers."""
        raise NotImplementedError


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


def is_token_model(model):
    """Whether a model maps tokens `[B, T]` to logits `[B, l, n]`, with all sizes known."""
    shapes = model.input_shape, model.output_shape
    return [len(shape) for shape in shapes] == [2, 3] and all(
        isinstance(size, int) for shape in shapes for size in shape[1:]
    )


def recurrent_layer(name):
    """The paper's sizes (Table 2): 100 controller and memory units, three memory layers."""
    import keras

    import keras_mnm

    if name == "lstm":
        return keras.layers.LSTM(100, return_sequences=True, name="lstm")
    if name == "lstm-salu":
        return keras_mnm.SALU(100, return_sequences=True, name="salu")
    write_rule = {"mnm-p": "local", "mnm-g": "gradient"}[name]
    return keras_mnm.MNM(100, write_rule=write_rule, return_sequences=True, name="mnm")


def main(task, description, arguments=None):
    """The whole example."""
    parser = training_parser(description, batch_size=32, learning_rate=3e-3)
    task.add_options(parser.add_argument_group("task"))
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    try:
        if args.evaluate:
            evaluate(task, args)
        else:
            train(task, args, parser)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted.\n")


def train(task, args, parser):
    instance = task.settings(args)
    name = f"{task.instance_name(instance)}-{args.model}"
    steps = args.steps or task.steps(instance)
    if steps > command_line.STEPS_PER_EPOCH:
        steps += -steps % command_line.STEPS_PER_EPOCH
    settings = {
        "task": task.name,
        **instance,
        "model": args.model,
        "steps": steps,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "schedule": "cosine to 1/20",
        "seed": args.seed,
        "start_from": args.start_from,
    }
    folder = args.output or pathlib.Path("runs") / f"{name}-seed{args.seed}"
    check_installed(parser, "matplotlib", "viz")

    import keras
    from trainer import Run, compile_model

    run = Run(folder, settings)
    run.open(args.resume)
    keras.utils.set_random_seed(args.seed)
    model = task.make_model(instance, recurrent_layer(args.model))
    if args.start_from:
        take_weights(model, args.start_from)
    check_writable(parser, folder)
    compile_model(model, args.learning_rate, settings["steps"], *task.loss_and_metrics())
    episodes = task.episodes(
        instance, batch_size=args.batch_size, steps=run.steps_per_epoch, seed=args.seed
    )
    print(
        f"Training {name} with {model.count_params():,} parameters, at most "
        f"{settings['steps']:,} updates of {args.batch_size} episodes; results in {folder}/"
    )
    try:
        model = run.train(model, episodes, task.solved)
    except KeyboardInterrupt:
        print(f"\n{run.interrupted()}", flush=True)
        parser.exit(130)

    figures = task.measure(model, args.episodes, args.seed)
    run.finish(model, f"{name}, seed {args.seed}", figures)
    show(task, model, args.seed)
    print(f"Model, curve, history and metrics are in {folder}/")
    print(json.dumps(figures))


def evaluate(task, args):
    model = open_model(args.evaluate)
    instance = ", ".join(f"{key} {value}" for key, value in task.settings_of(model).items())
    print(f"{args.evaluate}: {task.title} ({instance})")
    show(task, model, args.seed)
    print(json.dumps(task.measure(model, args.episodes, args.seed)))


def open_model(name):
    """A model by its file, by its run's folder, or by its preset's name."""
    import keras_mnm
    from keras_mnm.files import load_model

    path = pathlib.Path(name)
    if path.suffix == ".keras" or path.is_file():
        return load_model(path)
    return load_model(path / "model.keras") if path.is_dir() else keras_mnm.from_preset(name)


def take_weights(model, name):
    """Gives `model` the weights of another one of the same sizes."""
    weights = open_model(name).get_weights()
    theirs, ours = [w.shape for w in weights], [w.shape for w in model.get_weights()]
    if theirs != ours:
        raise ValueError(
            f"the weights of {name} have shapes {theirs}, those of this model {ours}; start from "
            "a model of the same kind and sizes"
        )
    model.set_weights(weights)


def show(task, model, seed, count=4):
    """Prints a few episodes with the model's answers."""
    inputs, targets = fresh_episodes(task, model, count, seed)
    task.show(inputs, targets, model.predict(inputs, verbose=0))


def fresh_episodes(task, model, count, seed):
    """Inputs and targets of episodes that no training run has seen."""
    settings = task.settings_of(model)
    options = {"batch_size": count, "steps": 1, "seed": seed, "first_epoch": FRESH_EPOCH}
    return task.episodes(settings, **options)[0]


def task_of(settings):
    """The `Task` of a run with these settings."""
    return importlib.import_module(EXAMPLES[settings["task"]]).TASK


def account_of(run):
    """How a run was trained and fared, and before it the run whose weights it began with."""
    history = json.loads((run / "history.json").read_text())
    names = ("command", "settings", "updates", "versions", "machine")
    if (run / "metrics.json").exists():
        metrics = json.loads((run / "metrics.json").read_text())
        account = {name: metrics[name] for name in names}
    else:  # ended before its time
        settings = json.loads((run / "settings.json").read_text())
        epochs = len(history["history"]["loss"])
        usual = min(command_line.STEPS_PER_EPOCH, settings["steps"])
        steps_per_epoch = settings.get("steps_per_epoch", usual)
        account = {"settings": settings, "updates": epochs * steps_per_epoch, **history["origin"]}
    account["seconds"] = history["seconds"]
    account["history"] = {
        name: [round(value, 6) for value in values] for name, values in history["history"].items()
    }
    start = account["settings"].get("start_from")
    before = pathlib.Path(start or "")
    before = before if before.is_dir() else before.parent
    if start and (before / "history.json").exists():
        account["started_from"] = account_of(before)
    return account
