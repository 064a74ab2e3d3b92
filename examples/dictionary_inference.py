"""Dictionary inference (§4.1, Fig. 2): learn to translate from a few examples, in context.

python examples/dictionary_inference.py
python examples/dictionary_inference.py --support-size 8 --length 4 --model mnm-g
python examples/dictionary_inference.py --evaluate dictionary-4x1-mnm-p --episodes 2000
"""

import experiment
from command_line import positive_int


class Dictionary(experiment.TokenTask):
    name = "dictionary"
    title = "dictionary inference"

    def add_options(self, group):
        group.add_argument("--support-size", type=positive_int, default=4, help="examples k")
        group.add_argument("--length", type=positive_int, default=1, help="letters a sequence l")

    def instance(self, args):
        from keras_mnm.tasks import dictionary

        dictionary.check_instance(args.support_size, args.length)
        return {"support_size": args.support_size, "length": args.length}

    def instance_of(self, model):
        from keras_mnm.tasks import dictionary

        input_shape, output_shape = experiment.shapes_of(model)
        if experiment.is_token_model(model):
            length = output_shape[1]
            support_size = (input_shape[1] - 2 * length - 2) // (2 * length + 2)
            fits = dictionary.sequence_length(support_size, length) == input_shape[1]
            if fits and output_shape[2] == len(dictionary.VOCABULARY):
                return {"support_size": support_size, "length": length}
        raise ValueError(
            f"the model maps {input_shape} to {output_shape}; expected one of dictionary "
            "inference, (batch, k(2l+2)+2l+2) tokens to (batch, l, "
            f"{len(dictionary.VOCABULARY)}) logits"
        )

    def instance_name(self, instance):
        return "dictionary-{support_size}x{length}".format(**instance)

    def steps(self, instance):
        return 2500 if instance["length"] == 1 else 8000

    def episodes(self, instance, **options):
        from keras_mnm.tasks import DictionaryInference

        return DictionaryInference(**instance, **options)

    def make_model(self, instance, recurrent):
        import keras_mnm
        from keras_mnm.tasks import dictionary

        steps = dictionary.sequence_length(**instance)
        size = len(dictionary.VOCABULARY)
        return keras_mnm.token_model(recurrent, size, steps, instance["length"])

    def show(self, inputs, targets, outputs):
        from keras_mnm.tasks.dictionary import decode

        for row, target, answer in zip(inputs, targets, outputs.argmax(-1), strict=True):
            verdict = "right" if (answer == target).all() else f"wrong, {decode(target)}"
            print(f"  {decode(row[: -len(target)])} {decode(answer)}  ({verdict})")


TASK = Dictionary()


def main(arguments=None):
    experiment.main(TASK, __doc__, arguments)


if __name__ == "__main__":
    main()
