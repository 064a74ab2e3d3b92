"""Packs a run of an example as a preset, evaluated on 10,000 fresh episodes.

python examples/make_preset.py runs/dictionary-4x1-mnm-p-seed0 presets/dictionary-4x1-mnm-p
"""

import json
import pathlib

from command_line import Parser, non_negative_int, positive_int, use_backend


def main(arguments=None):
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="the output folder of the run")
    parser.add_argument(
        "preset", type=pathlib.Path, help="folder to write; its name is the preset's"
    )
    parser.add_argument("--episodes", type=positive_int, default=10_000)
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of the evaluation")
    parser.add_argument("--results", type=pathlib.Path, default="benchmarks/results")
    parser.add_argument("--note", help="anything else to know about the training")
    args = parser.parse_args(arguments)
    use_backend(parser, "tensorflow")

    import dictionary_inference

    import keras_mnm
    from keras_mnm.files import load_model, replacing

    try:
        whole = args.run / "model.keras"
        model = load_model(whole if whole.exists() else args.run / "checkpoint.keras")
        training = account_of(args.run)
        support_size, length = dictionary_inference.instance_of(model)
    except (OSError, ValueError) as error:
        parser.error(f"{args.run} holds no run to pack: {error}")
    figures = dictionary_inference.measure(model, support_size, length, args.episodes, args.seed)
    rule = {"local": "MNM-p (local writes)", "gradient": "MNM-g (gradient writes)"}
    description = (
        f"{rule[training['settings']['write_rule']]} on dictionary inference, support size "
        f"{support_size}, length {length}."
    )
    if args.note:
        training["note"] = args.note
    keras_mnm.save_to_preset(model, args.preset, description, figures, training)
    args.results.mkdir(parents=True, exist_ok=True)
    with replacing(args.results / f"{args.preset.name}.json") as path:
        account = {**training, "evaluation": figures}
        path.write_text(json.dumps(account, indent=1) + "\n")
    print(json.dumps(figures))


def account_of(run):
    """How a run was trained and fared, and before it the run whose weights it began with."""
    metrics, history = run / "metrics.json", json.loads((run / "history.json").read_text())
    if metrics.exists():
        account = json.loads(metrics.read_text())
        names = ("command", "settings", "updates", "training_seconds", "versions", "machine")
        account = {name: account[name] for name in names}
    else:  # ended before its time
        settings = json.loads((run / "settings.json").read_text())
        epochs = len(history["history"]["loss"])
        updates = epochs * min(100, settings["steps"])
        account = {"settings": settings, "updates": updates, "training_seconds": history["seconds"]}
    account["accuracy"] = [round(accuracy, 4) for accuracy in history["history"]["accuracy"]]
    before = pathlib.Path(account["settings"].get("start_from") or "")
    if before.suffix == ".keras":
        account["started_from"] = account_of(before.parent)
    return account


if __name__ == "__main__":
    main()
