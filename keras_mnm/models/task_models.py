import keras

from keras_mnm.models.model import Model
from keras_mnm.validation import integer


def token_model(
    recurrent,
    vocabulary_size,
    sequence_length,
    answer_length,
    embedding_units=100,
    mask_zero=False,
):
    """A model that reads a row of tokens and answers at the row's last steps.

    Args:
        recurrent: A recurrent layer with `return_sequences=True`, for instance
            `keras_mnm.MNM(100, return_sequences=True)`.
        vocabulary_size: Number of tokens, in and out.
        sequence_length: Number of steps `T`, or None for any.
        answer_length: Number of steps at the end of the row that are answered.
        embedding_units: Size of the token embedding. Defaults to `100`.
        mask_zero: Whether token 0 is padding, which no step sees. Rows are padded on the left,
            for the answers are at their end. Defaults to `False`.

    Returns:
        A `keras_mnm.Model` from tokens `[B, T]` to logits `[B, answer_length, vocabulary_size]`.
    """
    tokens = keras.Input((sequence_length,), dtype="int32", name="tokens")
    # Unit variance: with Keras's default of ±0.05 the controller starts almost blind.
    embed = keras.layers.Embedding(
        vocabulary_size,
        embedding_units,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
        mask_zero=mask_zero,
        name="embedding",
    )
    logits = _answers(recurrent, embed(tokens), answer_length, vocabulary_size)
    return Model(tokens, logits, name="token_model")


def vector_model(recurrent, features, sequence_length, answer_length, output_units, encoder=None):
    """A model that reads a sequence of vectors and answers at its last steps.

    Args:
        recurrent: A recurrent layer with `return_sequences=True`, for instance
            `keras_mnm.MNM(100, return_sequences=True)`.
        features: Size of a vector.
        sequence_length: Number of steps `T`, or None for any.
        answer_length: Number of steps at the end that are answered.
        output_units: Size of an answer.
        encoder: A layer that the vectors go through first, `[B, T, features]` to `[B, T, any]`, for
            instance a `keras_mnm.Thermometer`. Defaults to `None`.

    Returns:
        A `keras_mnm.Model` from `[B, T, features]` to logits `[B, answer_length, output_units]`.
    """
    vectors = keras.Input((sequence_length, features), name="vectors")
    encoded = vectors if encoder is None else encoder(vectors)
    logits = _answers(recurrent, encoded, answer_length, output_units)
    return Model(vectors, logits, name="vector_model")


def _answers(recurrent, inputs, answer_length, units):
    if not getattr(recurrent, "return_sequences", False) or recurrent.return_state:
        raise ValueError(
            "`recurrent` must be a recurrent layer that returns all its outputs and nothing else: "
            f"pass return_sequences=True to it, and not return_state. Received: {recurrent!r}."
        )
    steps = inputs.shape[1]
    if integer("answer_length", answer_length) > (steps or answer_length):
        raise ValueError(
            f"`answer_length` can be at most the number of steps, {steps}. Received: "
            f"answer_length={answer_length}."
        )
    outputs = recurrent(inputs)[:, -answer_length:]
    return keras.layers.Dense(units, name="logits")(outputs)
