"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import importlib.util
import pkgutil

import keras
import pytest

import keras_mnm

OF_OTHER_BACKENDS = {
    f"keras_mnm.backend.{name}"
    for name in ("tensorflow", "jax", "torch")
    if name != keras.backend.backend()
}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(keras_mnm.__path__, "keras_mnm.")
    if not module.name.startswith("keras_mnm.presets") and module.name not in OF_OTHER_BACKENDS
)


OPTIONAL = {
    "keras_mnm.rl.tf_agents": "tf_agents",
    "keras_mnm.rl.gymnasium": "gymnasium",
    "keras_mnm.rl.pictures": "PIL",
}
"""Modules that need a package which not everybody installs."""


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    if name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None:
        pytest.skip(f"{OPTIONAL[name]} is not installed")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_public_names_are_documented():
    for name in keras_mnm.__all__:
        assert getattr(keras_mnm, name).__doc__, name
