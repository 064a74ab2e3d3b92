"""Pretrained models: a preset is a folder with `preset.json` and `model.keras`."""

import copy
import difflib
import hashlib
import json
import os
import pathlib
import re
import tempfile
import warnings

import keras

from keras_mnm.files import load_model, replacing, versions, write_json

SOURCE_VARIABLE = "KERAS_MNM_PRESETS"
"""Environment variable with a folder or a base URL in which presets are looked for first."""

_PACKAGED = pathlib.Path(__file__).parent.parent / "presets"
_CARD, _MODEL = "preset.json", "model.keras"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def list_presets(source=None):
    """The known presets and their cards.

    Args:
        source: A folder of presets, or a base URL, for which those are listed that were downloaded
            to the cache. Defaults to the environment variable `KERAS_MNM_PRESETS`. The packaged
            presets are always listed. A damaged card is left out, with a warning.

    Returns:
        A dict from name to card: `description`, `metrics` (with their seeds), `training`,
        `versions`, `size` in bytes, `sha256`, and the model's `configuration`.

    Example:

    >>> import keras_mnm
    >>> "dictionary-4x1-mnm-p" in keras_mnm.list_presets()
    True
    """
    folders = [_PACKAGED]
    source = _source(source)
    if source:
        folders.append(_cache(source) if _is_url(source) else pathlib.Path(source))
    paths = [path for folder in folders for path in sorted(folder.glob(f"*/{_CARD}"))]
    cards = {}
    for path in paths:
        if not _NAME.fullmatch(path.parent.name):  # of a download that is under way
            continue
        try:
            cards[path.parent.name] = _read_card(path)
        except ValueError as error:  # the others are as good as ever
            warnings.warn(f"{error} It is left out of the list.", stacklevel=2)
    return cards


def from_preset(name, load_weights=True, source=None):
    """A pretrained model, as an ordinary Keras model.

    Packaged presets need no network, unless `source` is a URL, which is asked first. What comes
    from there is kept in Keras's cache; the SHA-256 of every file is checked.

    Args:
        name: A name from `list_presets()`, or of a preset in `source`.
        load_weights: Whether to load the weights. With `False` the model has the preset's
            architecture and freshly drawn weights. Defaults to `True`.
        source: A folder or a base URL that holds `<name>/preset.json` and `<name>/model.keras`,
            as `save_to_preset` writes them. Defaults to the environment variable
            `KERAS_MNM_PRESETS`, then to the packaged presets.

    Returns:
        A Keras model, not compiled. Those that come with the package return logits: train on with
        a loss that has `from_logits=True`.

    Example:

    >>> import keras_mnm
    >>> model = keras_mnm.from_preset("dictionary-4x1-mnm-p")
    >>> model.output_shape
    (None, 1, 30)
    """
    if not _NAME.fullmatch(str(name)):
        path = pathlib.Path(name)
        raise ValueError(
            f"A preset's name has letters, digits, '.', '_' and '-'. Received: {name!r}. For a "
            f"preset in a folder of yours pass from_preset({path.name!r}, "
            f"source={str(path.parent)!r})."
        )
    folder = _locate(name, _source(source))
    card = _read_card(folder / _CARD)
    if not load_weights:
        return keras.saving.deserialize_keras_object(card["configuration"], safe_mode=True)
    path = folder / _MODEL
    _check_file(path, card)
    return load_model(path)


def save_to_preset(model, folder, description, metrics=None, training=None):
    """Saves a model as a preset, for `from_preset(name, source=...)`.

    Args:
        model: A Keras model.
        folder: The preset's folder; its name is the preset's name.
        description: One sentence for people.
        metrics: JSON-able figures, with the seeds they were measured with. Defaults to `None`.
        training: JSON-able account of how the model was trained. Defaults to `None`.

    Returns:
        The card that was written.

    Example:

    >>> import keras_mnm, tempfile
    >>> model = keras_mnm.from_preset("dictionary-4x1-mnm-p")
    >>> folder = tempfile.mkdtemp()
    >>> card = keras_mnm.save_to_preset(model, folder + "/mine", "A copy.")
    >>> copy = keras_mnm.from_preset("mine", source=folder)
    """
    folder = pathlib.Path(folder)
    check_folder_name(folder)
    configuration = keras.saving.serialize_keras_object(model)
    configuration.pop("compile_config", None)
    card = {"description": description, "metrics": metrics or {}, "training": training or {}}
    for name, value in card.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{name}` must be JSON-able, of str, int, float, list and dict (float(x) makes "
                f"one of a NumPy number). Received one that is not: {error}."
            ) from error
    # Without the optimizer a file has a third of the size. Deserializing empties the dict.
    bare = keras.saving.deserialize_keras_object(copy.deepcopy(configuration))
    bare.set_weights(model.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _MODEL) as temporary:
        bare.save(temporary)
        content = temporary.read_bytes()
    card |= {
        "versions": versions(),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "configuration": configuration,
    }
    write_json(folder / _CARD, card)
    return card


def check_folder_name(folder):
    """A ValueError where a preset in this folder could not be found by its name."""
    if not _NAME.fullmatch(folder.name):
        raise ValueError(
            "The folder's name becomes the preset's name: letters, digits, '.', '_' and '-'. "
            f"Received: {str(folder)!r}."
        )


def _source(source):
    """Where to look for presets first, or None; a given folder must exist."""
    if source and not _is_url(source) and not pathlib.Path(source).is_dir():
        raise ValueError(f"There is no folder {str(source)!r}; `source` must be one, or a URL.")
    return source or os.environ.get(SOURCE_VARIABLE)


def _is_url(source):
    return re.match(r"[a-z][a-z0-9+]*://", str(source)) is not None


def _locate(name, source):
    """The local folder of a preset: from `source` where it has it, else the packaged one."""
    try:
        if source and _is_url(source):
            return _download(name, source)
        if source and (pathlib.Path(source) / name / _CARD).exists():
            return pathlib.Path(source) / name
    except FileNotFoundError:
        pass
    if (_PACKAGED / name / _CARD).exists():
        return _PACKAGED / name
    raise ValueError(_unknown(name, source))


def _unknown(name, source):
    known = list(list_presets(source))
    looked = f" (also looked in {source})" if source else ""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"Unknown preset {name!r}{looked}.{meant} Known presets: {', '.join(known) or 'none'}. "
        f"For presets of your own pass `source`, a folder or base URL, or set {SOURCE_VARIABLE}."
    )


def _cache(base):
    """The folder in Keras's cache for the presets of a URL, apart from those of other ones."""
    place = hashlib.sha256(base.rstrip("/").encode()).hexdigest()[:12]
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    return home / "keras_mnm" / place


def _download(name, base):
    """Brings `<base>/<name>/` into Keras's cache and returns the folder there.

    What the cache holds stays until a whole preset takes its place. A FileNotFoundError where the
    server has no such preset.
    """
    base, folder = base.rstrip("/"), _cache(base) / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
            new = pathlib.Path(temporary)
            _fetch(f"{base}/{name}/{_CARD}", new / _CARD)
            card = _read_card(new / _CARD)
            if not _is_whole(folder / _MODEL, card):
                _fetch_model(f"{base}/{name}/{_MODEL}", new / _MODEL, card)
                folder.mkdir(exist_ok=True)
                os.replace(new / _MODEL, folder / _MODEL)
            os.replace(new / _CARD, folder / _CARD)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if not _is_cached(folder):
            raise ValueError(
                f"Preset {name!r} could not be fetched from {base}: {error} Nothing was kept, and "
                "the cache has no copy. Check the address and the network, or pass a local folder "
                "as `source`."
            ) from error
    return folder


def _fetch_model(url, path, card):
    try:
        _fetch(url, path, card["sha256"])
    except FileNotFoundError as error:  # which would mean that there is no such preset
        raise ValueError(f"it has a {_CARD} there, and no {_MODEL}.") from error


def _fetch(url, path, sha256=None):
    """Downloads a file. A FileNotFoundError where the server has none, else an OSError."""
    try:
        keras.utils.get_file(
            path.name,
            url,
            cache_dir=path.parent,
            cache_subdir="",
            file_hash=sha256,
            hash_algorithm="sha256",
        )
    except Exception as error:  # get_file raises plain Exceptions around those of urllib
        if getattr(error.__context__, "code", None) == 404:
            raise FileNotFoundError(url) from error
        raise OSError(str(error)) from error


def _is_cached(folder):
    return (folder / _CARD).exists() and _is_whole(folder / _MODEL, _read_card(folder / _CARD))


def _is_whole(path, card):
    return path.exists() and _sha256(path) == card["sha256"]


def _read_card(path):
    try:
        card = json.loads(path.read_text())
        card["sha256"], card["size"], card["configuration"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no preset card ({type(error).__name__}: {error}). Expected the "
            f"{_CARD} that keras_mnm.save_to_preset writes."
        ) from error
    return card


def _check_file(path, card):
    if not path.exists():
        raise ValueError(f"{path} is missing; the preset's folder needs {_CARD} and {_MODEL}.")
    if not _is_whole(path, card):
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {_sha256(path)}, expected {card['sha256']} "
            f"({path.stat().st_size} bytes, expected {card['size']}). Delete it and fetch it again."
        )


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
