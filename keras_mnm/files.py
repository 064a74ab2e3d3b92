"""Files that are whole or absent, and models that are what they claim to be."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
import zipfile

import keras

from keras_mnm import backend


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside `path` that takes its place if the block succeeds.

    >>> import pathlib, tempfile
    >>> from keras_mnm.files import replacing
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for {path.name}; make it first.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        temporary = pathlib.Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def write_json(path, content, indent=1):
    """Writes a file of JSON, whole or not at all."""
    text = json.dumps(content, indent=indent) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text)


def save_figure(figure, path, dpi=150):
    """Writes a picture of matplotlib's, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def load_model(path, compile=False):
    """`keras.saving.load_model` in safe mode, with a clear error for what is no such file."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}. Expected a model saved as .keras.")
    try:
        if not zipfile.is_zipfile(path):  # of which Keras says that it was not found
            raise ValueError("it is another kind of file, or not whole.")
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(
            f"{path} could not be loaded as a Keras model: {error} Expected a .keras file of this "
            "package, whole and made by a compatible version; fetch or save it again; if it "
            "is a run's checkpoint, begin the run anew."
        ) from error


def versions():
    """Versions of Python and of the packages that decide a result."""
    import keras_mnm  # which imports this module

    found = {
        "python": platform.python_version(),
        "backend": backend.NAME,
        "keras-mnm": keras_mnm.__version__,
    }
    for package in ("keras", "numpy", backend.NAME):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
