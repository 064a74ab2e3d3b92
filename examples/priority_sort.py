"""Priority sort (§4.1, Fig. 4): emit the 16 vectors of highest priority among 20, in order.

python examples/priority_sort.py
python examples/priority_sort.py --model lstm-salu
python examples/priority_sort.py --thresholds 64 --meta-loss-weight 0.1 --step-size 0.16 \\
  --num-heads 3 --memory-gain 2
python examples/priority_sort.py --evaluate runs/priority-sort-mnm-p-seed0 --episodes 2000
"""

import experiment
from command_line import positive_int


class PrioritySort(experiment.Task):
    name = "priority-sort"
    title = "priority sort"

    def add_options(self, group):
        group.add_argument("--vectors", type=positive_int, default=20, help="vectors a sequence")
        group.add_argument(
            "--sorted-vectors",
            type=positive_int,
            help="how many of them are wanted; by default four fifths",
        )
        group.add_argument(
            "--thresholds",
            type=positive_int,
            help="give the priority through a `keras_mnm.Thermometer` of that many, at least 2, "
            "which the paper does not do; by default as one number",
        )

    def instance(self, args):
        from keras_mnm.tasks import priority_sort

        wanted = args.sorted_vectors or max(1, 4 * args.vectors // 5)
        priority_sort.check_instance(args.vectors, wanted)
        return _instance(args.vectors, wanted, args.thresholds)

    def instance_of(self, model):
        from keras_mnm import Thermometer
        from keras_mnm.tasks import priority_sort

        input_shape, output_shape = experiment.shapes_of(model)
        sizes = (priority_sort.CHANNELS,), (priority_sort.BITS,)
        if (input_shape[2:], output_shape[2:]) == sizes and input_shape[1]:
            steps, wanted = input_shape[1], output_shape[1]
            if 2 * wanted <= steps:
                codes = [x.thresholds for x in model.layers if isinstance(x, Thermometer)]
                return _instance(steps - wanted, wanted, *codes[:1])
        raise ValueError(
            f"the model maps {input_shape} to {output_shape}; expected one of priority sort, "
            f"(batch, n+m, {priority_sort.CHANNELS}) to (batch, m, {priority_sort.BITS}) logits"
        )

    def instance_name(self, instance):
        sizes = (instance["vectors"], instance["sorted_vectors"])
        return self.name if sizes == (20, 16) else "{}-{}x{}".format(self.name, *sizes)

    def steps(self, instance):
        return 4000

    def episodes(self, instance, **options):
        from keras_mnm.tasks import PrioritySort

        return PrioritySort(instance["vectors"], instance["sorted_vectors"], **options)

    def make_model(self, instance, recurrent):
        import keras_mnm
        from keras_mnm.tasks.priority_sort import BITS, CHANNELS

        wanted = instance["sorted_vectors"]
        steps = instance["vectors"] + wanted
        thresholds = instance.get("thresholds")
        encoder = keras_mnm.Thermometer(thresholds) if thresholds else None
        return keras_mnm.vector_model(recurrent, CHANNELS, steps, wanted, BITS, encoder=encoder)

    def loss_and_metrics(self):
        import keras

        import keras_mnm

        return keras.losses.BinaryCrossentropy(from_logits=True), [keras_mnm.WrongBits()]

    def solved(self, logs):
        return logs["wrong_bits"] == 0.0

    def figures(self, outputs, targets):
        wrong = (outputs > 0) != (targets > 0)
        return {
            "wrong_bits_per_sequence": float(wrong.sum(axis=(1, 2)).mean()),
            "bit_accuracy": float(1.0 - wrong.mean()),
        }

    def show(self, inputs, targets, outputs):
        bits = targets[0].size
        for target, answer in zip(targets, outputs, strict=True):
            wrong = int(((answer > 0) != (target > 0)).sum())
            print(f"  {wrong} of {bits} bits are wrong; the first vectors:")
            for wanted, found in zip(target[:3], answer[:3], strict=True):
                print(f"    {_digits(wanted)} wanted, {_digits(found)} found")


def _instance(vectors, wanted, thresholds=None):
    settings = {"vectors": vectors, "sorted_vectors": wanted}
    return {**settings, "thresholds": thresholds} if thresholds else settings


def _digits(vector):
    return "".join("1" if bit > 0 else "0" for bit in vector)


TASK = PrioritySort()


def main(arguments=None):
    experiment.main(TASK, __doc__, arguments)


if __name__ == "__main__":
    main()
