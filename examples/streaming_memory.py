"""A memory that runs on: store pairs one at a time, recall them later, for several users at once.

python examples/streaming_memory.py
python examples/streaming_memory.py --users 3 --seed 7 --session runs/session.npz

Each user is a row of one batch. The model is pretrained on dictionary inference and never trained
here: what it learns of a user's dictionary, it writes to that user's memory.
"""

import pathlib

from command_line import (
    Parser,
    add_backend_option,
    check_writable,
    non_negative_int,
    positive_int,
    use_backend,
)


def main(arguments=None):
    parser = Parser(description=__doc__)
    parser.add_argument("--users", type=positive_int, default=3, help="memories side by side")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the dictionaries")
    parser.add_argument(
        "--session",
        type=pathlib.Path,
        default="runs/streaming_memory.npz",
        help="file that the memories are saved to, in place of what it has",
    )
    add_backend_option(parser, "tensorflow", "jax", "torch")
    args = parser.parse_args(arguments)
    use_backend(parser, args.backend)
    if args.session.is_dir():
        parser.error(f"--session {args.session} is a folder; name a file")
    check_writable(parser, args.session.parent)

    import numpy as np

    import keras_mnm
    from keras_mnm.tasks.dictionary import NUM_LETTERS

    rng = np.random.default_rng(args.seed)
    memory = StreamingDictionary(keras_mnm.from_preset("dictionary-4x1-mnm-p"), args.users)
    pairs = [rng.permutation(NUM_LETTERS)[:8].reshape(4, 2).tolist() for _ in range(args.users)]

    print("Storing four pairs for each user, one at a time:")
    for turn in range(4):
        for user in range(args.users):
            memory.store(user, *pairs[user][turn])
    for user in range(args.users):
        print(f"  user {user}: {show(pairs[user])}")
    print("Recalling them:")
    recall_all(memory, pairs)

    memory.save(args.session)
    memory.reset(0)
    print("The memory of user 0 is empty again, the others' are as they were:")
    recall_all(memory, pairs)

    print(f"A new model, its memories restored from {args.session}:")
    again = StreamingDictionary(keras_mnm.from_preset("dictionary-4x1-mnm-p"), args.users)
    again.load(args.session)
    recall_all(again, pairs)


def recall_all(memory, pairs):
    for user, wanted in enumerate(pairs):
        found = [(source, memory.recall(user, source)) for source, _ in wanted]
        right = sum(pair == tuple(target) for pair, target in zip(found, wanted, strict=True))
        print(f"  user {user}: {show(found)}   {right} of {len(wanted)} right")


def show(pairs):
    from keras_mnm.tasks.dictionary import VOCABULARY

    return "  ".join(f"{VOCABULARY[source]} → {VOCABULARY[target]}" for source, target in pairs)


class StreamingDictionary:
    """A model of dictionary inference (l = 1) that takes its input as it comes.

    Args:
        model: A `keras_mnm.token_model` around an `MNM` layer, trained on pairs of one letter.
        users: How many memories to keep, one a row.
    """

    def __init__(self, model, users):
        import keras
        import numpy as np

        import keras_mnm

        self.users = users
        trained = model.get_layer("mnm")
        layer = keras_mnm.MNM.from_config({**trained.get_config(), "return_state": True})
        # Four tokens make a pair or a question; rows of other users are masked, and left alone.
        tokens = keras.Input((4,), dtype="int32", name="tokens")
        mask = keras.Input((4,), dtype="bool", name="mask")
        states = [keras.Input((size,)) for size in layer.cell.state_size]
        embedded = model.get_layer("embedding")(tokens)
        outputs, *new_states = layer(embedded, initial_state=states, mask=mask)
        layer.set_weights(trained.get_weights())
        logits = model.get_layer("logits")(outputs[:, -1])
        self.model = keras.Model([tokens, mask, *states], [logits, *new_states])
        self.states = [np.zeros((users, size), "float32") for size in layer.cell.state_size]

    def store(self, user, source, target):
        """Writes one pair of letters to a user's memory."""
        from keras_mnm.tasks.dictionary import END_OF_SEQUENCE, SEPARATOR

        _, self.states = self._run(user, [source, END_OF_SEQUENCE, target, SEPARATOR])

    def recall(self, user, source):
        """The letter that a user's memory has for another; asking changes nothing."""
        from keras_mnm.tasks.dictionary import END_OF_SEQUENCE, END_OF_SUPPORT, PLACEHOLDER

        question = [END_OF_SUPPORT, source, END_OF_SEQUENCE, PLACEHOLDER]
        logits, _ = self._run(user, question)
        return int(logits[user].argmax())

    def reset(self, user):
        """Empties a user's memory: zeros are the empty one, for states hold what was written."""
        for state in self.states:
            state[user] = 0.0

    def save(self, path):
        """Writes all memories to a file."""
        import numpy as np

        from keras_mnm.files import replacing

        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, *self.states)

    def load(self, path):
        """Reads the memories from a file of `save`."""
        import numpy as np

        with np.load(path) as arrays:
            states = [arrays[name] for name in arrays.files]
        found, expected = ([state.shape for state in each] for each in (states, self.states))
        if found != expected:
            raise ValueError(
                f"{path} holds memories of shapes {found}, this model has {expected}; load a "
                "session of the same model and number of users."
            )
        self.states = states

    def _run(self, user, tokens):
        import numpy as np

        rows = np.zeros((self.users, 4), "int32")
        mask = np.zeros((self.users, 4), bool)
        rows[user], mask[user] = tokens, True
        logits, *states = self.model.predict_on_batch([rows, mask, *self.states])
        return logits, [np.array(state) for state in states]


if __name__ == "__main__":
    main()
