"""The tests of layers, and of models of them, on JAX and torch, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest

LAYERS = [
    "test_building_blocks.py",
    "test_neural_memory.py",
    "test_sequence.py",
    "test_mnm.py",
    "test_salu.py",
    "test_plastic.py",
    "test_thermometer.py",
    "test_trace.py",
]
MODELS = [
    "test_maze.py",
    "test_a2c.py",
    "test_distribution.py",
    "test_recurrent.py",
    "test_deployment.py",
    "test_training.py",
    "test_model.py",
]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend(backend):
    run_on(backend, LAYERS)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_on_backend(backend):
    run_on(backend, MODELS)


def run_on(backend, files):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("runs once, from the TensorFlow backend")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; it is the extra '{backend}'")
    here = os.path.dirname(__file__)
    # Workers of its own would compile the same programs over again.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += ["-o", "faulthandler_timeout=600"]  # seconds; before that of this test itself
    done = subprocess.run(
        [*command, *(os.path.join(here, name) for name in files)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
