import gc
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_ENABLE_X64", "1")
# Small programs, each run a few times, so that the tests wait for the compiler: they ask XLA for
# few optimizations (users have them all), and JAX keeps what was compiled. Fusion emitters take
# longer to compile than the older ones, and so do small programs in pieces. XLA's own threads have
# been known to wait for each other for ever where cores are few (PyAutoLabs/PyAutoFit#1528), and
# here several processes share the cores. torch's threads spin while they wait. Up to AVX2 half
# precision is rounded alike everywhere; later processors have instructions that round less often.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_multi_thread_eigen=false "
    "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_max_isa=AVX2",
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), f"keras_mnm_tests_{os.getuid()}"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Settings of the user's must not decide what the tests find.
os.environ.pop("KERAS_MNM_PRESETS", None)

import keras
import pytest
from keras.src.backend.common import dtypes

# Keras rounds float64 to float32 on JAX and torch. The equations are compared to ten digits, so
# the tests lift that, here alone.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float32")


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped():
    """JAX holds every program that it compiled, too many over all files of tests."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        keras.backend.clear_session()
        jax.clear_caches()
        gc.collect()


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """A float type, and how closely a result must agree with the float64 reference."""
    return request.param, {"float32": 1e-5, "float64": 1e-10}[request.param]
