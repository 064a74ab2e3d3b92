"""Double copy (§4.1, Fig. 4): repeat a sequence of 50 symbols, twice.

python examples/double_copy.py
python examples/double_copy.py --model lstm-salu --length 20
python examples/double_copy.py --evaluate runs/double-copy-mnm-p-seed0 --episodes 2000
"""

import experiment
from command_line import positive_int


class DoubleCopy(experiment.TokenTask):
    name = "double-copy"
    title = "double copy"

    def add_options(self, group):
        group.add_argument("--length", type=positive_int, default=50, help="symbols a sequence l")

    def instance(self, args):
        return {"length": args.length}

    def instance_of(self, model):
        from keras_mnm.tasks import double_copy

        input_shape, output_shape = experiment.shapes_of(model)
        if experiment.is_token_model(model):
            length = (input_shape[1] - 1) // 3
            answers = (None, double_copy.COPIES * length, len(double_copy.VOCABULARY))
            if double_copy.sequence_length(length) == input_shape[1] and output_shape == answers:
                return {"length": length}
        raise ValueError(
            f"the model maps {input_shape} to {output_shape}; expected one of double copy, "
            f"(batch, 3l+1) tokens to (batch, 2l, {len(double_copy.VOCABULARY)}) logits"
        )

    def instance_name(self, instance):
        return self.name if instance["length"] == 50 else f"{self.name}-{instance['length']}"

    def steps(self, instance):
        return 2000

    def episodes(self, instance, **options):
        from keras_mnm.tasks import DoubleCopy

        return DoubleCopy(**instance, **options)

    def make_model(self, instance, recurrent):
        import keras_mnm
        from keras_mnm.tasks import double_copy

        steps = double_copy.sequence_length(**instance)
        answers = double_copy.COPIES * instance["length"]
        return keras_mnm.token_model(recurrent, len(double_copy.VOCABULARY), steps, answers)

    def show(self, inputs, targets, outputs):
        from keras_mnm.tasks.double_copy import decode

        for row, target, answer in zip(inputs, targets, outputs.argmax(-1), strict=True):
            wrong = (answer != target).sum()
            print(f"  {decode(row[: -len(target)])}{decode(answer)}  ({wrong} wrong)")


TASK = DoubleCopy()


def main(arguments=None):
    experiment.main(TASK, __doc__, arguments)


if __name__ == "__main__":
    main()
