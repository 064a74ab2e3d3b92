"""Packs a run of an example as a preset, evaluated on 10,000 fresh episodes.

python examples/make_preset.py runs/dictionary-4x1-mnm-p-seed0 presets/my-dictionary-4x1
"""

import json
import pathlib

from command_line import (
    LABELS,
    Parser,
    add_backend_option,
    check_writable,
    non_negative_int,
    positive_int,
    use_backend,
)


def main(arguments=None):
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="the output folder of the run")
    parser.add_argument(
        "preset", type=pathlib.Path, help="folder to write; its name is the preset's"
    )
    parser.add_argument("--episodes", type=positive_int, default=10_000, help="fresh ones")
    parser.add_argument("--data-dir", type=pathlib.Path, help="of bAbI, instead of fresh episodes")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="of bAbI")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of the evaluation")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("benchmarks/results"),
        help="folder for the account of training and evaluation that goes with the figures, in "
        "place of one of that name",
    )
    parser.add_argument(
        "--average-with",
        type=pathlib.Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="other runs, which led to this one or began where it did: the preset gets the mean of "
        "all their weights",
    )
    parser.add_argument("--note", help="anything else to know about the training")
    add_backend_option(parser, "tensorflow", "jax", "torch")
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    with parser.answering():
        pack(args, parser)


def pack(args, parser):
    import experiment

    import keras_mnm
    from keras_mnm.files import load_model, write_json
    from keras_mnm.models.presets import check_folder_name

    check_folder_name(args.preset)
    model = load_model(experiment.model_of(args.run))
    training = experiment.account_of(args.run)
    settings = training["settings"]
    task = experiment.task_of(settings)
    instance = task.instance_of(model)
    weights = [model.get_weights()]
    for run in args.average_with:
        account = experiment.account_of(run)
        theirs, ours = account["settings"]["model"], settings["model"]
        if theirs != ours:
            raise ValueError(
                f"{run} is a run of {theirs}, {args.run} of {ours}; average runs of one model"
            )
        experiment.take_weights(model, str(experiment.model_of(run)))
        weights.append(model.get_weights())
        if account in experiment.stages(training):  # and told there
            account = {"command": account["command"]}
        training.setdefault("averaged_with", []).append(account)
    model.set_weights([sum(arrays) / len(weights) for arrays in zip(*weights, strict=True)])
    vars(args).update(task.measuring_options(settings))
    words = [f", {name.replace('_', ' ')} {settings[name]}" for name in instance]
    if task.name == "babi" and len(args.tasks) < 20:
        words = [f", tasks {', '.join(map(str, args.tasks))}"]
    description = f"{LABELS[settings['model']]} on {task.title}{''.join(words)}."
    for folder in (args.preset.parent, args.results):
        check_writable(parser, folder)
    figures = task.measure(model, args)
    if args.note:
        training["note"] = args.note
    keras_mnm.save_to_preset(model, args.preset, description, figures, training)
    write_json(args.results / f"{args.preset.name}.json", {**training, "evaluation": figures})
    print(f"Written to {args.preset}/ and {args.results / args.preset.name}.json. Load it by")
    print(f"keras_mnm.from_preset({args.preset.name!r}, source={str(args.preset.parent)!r})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
