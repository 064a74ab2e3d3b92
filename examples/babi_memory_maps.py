"""Figure 5: what a trained model's memory does while it reads stories of bAbI and answers.

python examples/babi_memory_maps.py babi-mnm-p --data-dir tasks_1-20_v1-2
python examples/babi_memory_maps.py runs/babi-mnm-p-seed0 --story "Mary went to the kitchen. Mary \
took the milk. Where is the milk?"
"""

import pathlib

import numpy as np
from command_line import (
    Parser,
    add_backend_option,
    check_installed,
    check_writable,
    use_backend,
)

SHORTEST, LONGEST = 30, 50
"""Words of a story that is legible as a picture."""


def main(arguments=None):
    parser = Parser(description=__doc__)
    parser.add_argument("model", help="a .keras file, the folder of a run, or a preset's name")
    parser.add_argument("--data-dir", metavar="PATH", help="folder or archive of bAbI")
    parser.add_argument(
        "--split", choices=("valid", "test", "train"), default="valid", help="of the files"
    )
    parser.add_argument(
        "--task",
        type=int,
        default=1,
        help="whose first story is drawn that is of 30 to 50 words, or comes nearest",
    )
    parser.add_argument("--story", help="a story with its question, instead of one of the files")
    parser.add_argument(
        "--answers",
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="with --story: words of the answer",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default="runs/babi_memory_maps",
        help="folder of the pictures",
    )
    add_backend_option(parser, "tensorflow", "jax", "torch")
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    check_installed(parser, "matplotlib", "viz")

    import babi as example
    import experiment

    from keras_mnm.tasks import babi
    from keras_mnm.visualize import memory_maps

    with parser.answering():
        model = experiment.open_model(args.model)
        example.TASK.instance_of(model)
        tokens = read_story(args, example, babi)
        check_writable(parser, args.output)
        labels = [babi.VOCABULARY[token] for token in tokens]
        inputs, answers = np.array([tokens]), tokens.count(babi.PLACEHOLDER)
        marks = [place + 1 for place, label in enumerate(labels) if label == "."]
        if not marks:
            raise ValueError("the story has no sentence before its question; expected some.")
        question, end_of_story = marks[-1], slice(marks[-4] if len(marks) > 3 else 0, marks[-1])
        found = model.predict(inputs, verbose=0)[0].argmax(-1)[-answers:]
        title = f"{babi.decode(tokens[question:-answers])}  {babi.decode(found)}"
        for name, rows in (("question", slice(question, None)), ("story", end_of_story)):
            path = args.output / f"{name}.png"
            memory_maps(model, inputs, labels, path, title, queries=rows)
            print(f"Written to {path}")


def read_story(args, example, babi):
    """The tokens of the story to draw, its placeholders at the end."""
    if args.story is not None:
        return example.read_question(args.story, args.answers)
    questions = babi.load(args.data_dir, args.split, [args.task])
    row = np.maximum(SHORTEST - questions.lengths, questions.lengths - LONGEST).clip(0).argmin()
    return questions.row(row).tolist()


if __name__ == "__main__":
    main()
