"""Dictionary inference (§4.1, Fig. 2): learn to translate from a few examples, in context.

python examples/dictionary_inference.py
python examples/dictionary_inference.py --support-size 8 --length 4
python examples/dictionary_inference.py --evaluate dictionary-4x1-mnm-p --episodes 2000
"""

import json
import pathlib

from command_line import check_installed, check_writable, positive_int, training_parser, use_backend

STEPS = {1: 2500, 4: 8000}
"""Updates at most, by sequence length; longer ones get as many as the longest here."""


def main(arguments=None):
    parser = training_parser(__doc__, batch_size=32, learning_rate=3e-3)
    task = parser.add_argument_group("task")
    task.add_argument("--support-size", type=positive_int, default=4, help="examples k")
    task.add_argument("--length", type=positive_int, default=1, help="letters a sequence l")
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    try:
        if args.evaluate:
            evaluate(args)
        else:
            train(args, parser)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted.\n")


def train(args, parser):
    from keras_mnm.tasks import dictionary

    dictionary.check_instance(args.support_size, args.length)
    rule = {"local": "p", "gradient": "g"}[args.write_rule]
    name = f"dictionary-{args.support_size}x{args.length}-mnm-{rule}"
    settings = {
        "task": "dictionary",
        "support_size": args.support_size,
        "length": args.length,
        "write_rule": args.write_rule,
        "steps": args.steps or STEPS.get(args.length, max(STEPS.values())),
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "schedule": "cosine to 1/20",
        "seed": args.seed,
        "start_from": args.start_from,
    }
    folder = args.output or pathlib.Path("runs") / f"{name}-seed{args.seed}"
    check_writable(parser, folder)
    check_installed(parser, "matplotlib", "viz")

    import keras
    from trainer import Run, compile_model

    run = Run(folder, settings)
    run.open(args.resume)
    keras.utils.set_random_seed(args.seed)
    model = make_model(args.support_size, args.length, args.write_rule)
    if args.start_from:
        take_weights(model, args.start_from)
    compile_model(model, args.learning_rate, settings["steps"])
    data = dictionary.DictionaryInference(
        args.support_size, args.length, args.batch_size, run.steps_per_epoch, args.seed
    )
    print(
        f"Training {name} with {model.count_params():,} parameters, at most "
        f"{settings['steps']:,} updates of {args.batch_size} episodes; results in {folder}/"
    )
    try:
        model = run.train(model, data, solved=lambda logs: logs["sequence_accuracy"] == 1.0)
    except KeyboardInterrupt:
        print(f"\n{run.interrupted()}", flush=True)
        parser.exit(130)

    figures = measure(model, args.support_size, args.length, args.episodes, args.seed)
    run.finish(model, f"Dictionary inference ({args.support_size}, {args.length}), {name}", figures)
    show_translations(model, args.support_size, args.length, args.seed)
    print(f"Model, curve, history and metrics are in {folder}/")
    print(json.dumps(figures))


def make_model(support_size, length, write_rule):
    """The paper's model (Table 2): 100 controller and memory units, three memory layers."""
    import keras_mnm
    from keras_mnm.tasks import dictionary

    recurrent = keras_mnm.MNM(100, write_rule=write_rule, return_sequences=True, name="mnm")
    steps = dictionary.sequence_length(support_size, length)
    return keras_mnm.token_model(recurrent, len(dictionary.VOCABULARY), steps, length)


def open_model(name):
    """A model by its file or by its preset's name."""
    import keras_mnm
    from keras_mnm.files import load_model

    return load_model(name) if name.endswith(".keras") else keras_mnm.from_preset(name)


def take_weights(model, name):
    """Gives `model` the weights of another one of the same sizes."""
    weights = open_model(name).get_weights()
    theirs, ours = [w.shape for w in weights], [w.shape for w in model.get_weights()]
    if theirs != ours:
        raise ValueError(
            f"the weights of {name} have shapes {theirs}, those of this model {ours}; start from "
            "a model with the same write rule and units"
        )
    model.set_weights(weights)


def evaluate(args):
    model = open_model(args.evaluate)
    support_size, length = instance_of(model)
    print(f"{args.evaluate}: dictionary inference, support size {support_size}, length {length}")
    show_translations(model, support_size, length, args.seed)
    print(json.dumps(measure(model, support_size, length, args.episodes, args.seed)))


def instance_of(model):
    """Support size and length of the instance that a model was made for."""
    from keras_mnm.tasks import dictionary

    input_shape, output_shape = model.input_shape, model.output_shape
    if len(input_shape) == 2 and len(output_shape) == 3 and input_shape[1]:
        length = output_shape[1]
        support_size = (input_shape[1] - 2 * length - 2) // (2 * length + 2)
        fits = dictionary.sequence_length(support_size, length) == input_shape[1]
        if fits and output_shape[2] == len(dictionary.VOCABULARY):
            return support_size, length
    raise ValueError(
        f"the model maps {input_shape} to {output_shape}; expected one of dictionary inference, "
        f"(batch, k(2l+2)+2l+2) tokens to (batch, l, {len(dictionary.VOCABULARY)}) logits"
    )


def measure(model, support_size, length, episodes, seed):
    """Symbol and sequence accuracy on fresh episodes."""
    tokens, targets = fresh_episodes(support_size, length, episodes, seed)
    right = model.predict(tokens, batch_size=250, verbose=0).argmax(-1) == targets
    return {
        "symbol_accuracy": float(right.mean()),
        "sequence_accuracy": float(right.all(axis=1).mean()),
        "episodes": episodes,
        "evaluation_seed": seed,
    }


def fresh_episodes(support_size, length, episodes, seed):
    """Episodes of a stream that no training epoch draws from."""
    from keras_mnm.tasks import dictionary

    never_trained_on = 10**9
    data = dictionary.DictionaryInference(
        support_size, length, episodes, steps=1, seed=seed, first_epoch=never_trained_on
    )
    return data[0]


def show_translations(model, support_size, length, seed, count=4):
    """Prints a few episodes with the model's answers."""
    from keras_mnm.tasks import dictionary

    tokens, targets = fresh_episodes(support_size, length, count, seed)
    answers = model.predict(tokens, verbose=0).argmax(-1)
    for row, target, answer in zip(tokens, targets, answers, strict=True):
        verdict = "right" if (answer == target).all() else f"wrong, {dictionary.decode(target)}"
        print(f"  {dictionary.decode(row[:-length])} {dictionary.decode(answer)}  ({verdict})")


if __name__ == "__main__":
    main()
