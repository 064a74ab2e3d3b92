"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import keras_mnm

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(keras_mnm.__path__, "keras_mnm.")
    if not module.name.startswith("keras_mnm.presets")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_public_names_are_documented():
    for name in keras_mnm.__all__:
        assert getattr(keras_mnm, name).__doc__, name
