"""Data-parallel training, by each engine in processes of its own, equals training on one device."""

import functools
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed_training
import keras
import numpy as np
import pytest


def needs(backend):
    reason = f"an engine of the backend {backend}"
    return pytest.mark.skipif(keras.backend.backend() != backend, reason=reason)


def run(engine, *environments):
    """What the engine's processes print; when one fails, the others have none to wait for."""
    command = [sys.executable, distributed_training.__file__, engine]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]

    def finish(process):
        output, errors = process.communicate()
        if process.returncode:
            for other in processes:
                other.kill()
        return process.returncode, output, errors

    with ThreadPoolExecutor(len(processes)) as pool:
        finished = list(pool.map(finish, processes))
    assert not any(code for code, _, _ in finished), "\n".join(e[-3000:] for *_, e in finished)
    return [json.loads(output.splitlines()[-1]) for _, output, _ in finished]


def free_ports(count):
    servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@functools.cache
def train_on_one_device():
    return distributed_training.train(distributed_training.one_device)


def assert_same_training(*trainings):
    expected = train_on_one_device()
    for training in trainings:
        assert training.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(
                training[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name
            )


@needs("tensorflow")
def test_mirrored_strategy():
    assert_same_training(*run("mirrored", {}))


@needs("tensorflow")
def test_multi_worker_mirrored_strategy():
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    assert_same_training(
        *run(
            "multi_worker",
            *({"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks),
        )
    )


@needs("jax")
def test_data_parallel():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    assert_same_training(*run("data_parallel", {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}))


def test_the_page_shows_what_runs_here():
    page = Path(__file__).parents[1] / "docs" / "distributed.md"
    shown = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(shown) == 3
    for code in shown:
        assert textwrap.indent(code, "    ") in inspect.getsource(distributed_training)
