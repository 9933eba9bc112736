"""Kernels in processes as programs have them: forked, spawned, and ending amid a call."""

from __future__ import annotations

import copy
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import twolayer_kernels.numpy as fused_numpy
from twolayer_kernels import FusedTwoLayer, fit
from twolayer_kernels.backends.cpu import _cpu

from .comparing import assert_same_bits
from .problems import fused, integers, plain
from .shapes import Shape

SHAPE = Shape(64, 300, 100, 10)
SECONDS = 20

# Here and not in the child of a fork, where torch's own products would hang.
PROBLEM = integers(SHAPE, torch.float32, seed=1)
WANTED = plain(PROBLEM)


def torch_results():
    """On threads, whatever this process was told: a DataLoader's workers are told to have one."""
    torch.set_num_threads(2)
    return fused(PROBLEM, "cpu")


def numpy_results():
    fused_numpy.set_num_threads(2)
    x, w1, w2, b1, b2 = (t.numpy() for t in PROBLEM.inputs.values())
    y, a = fused_numpy.two_layer_forward(x, w1, w2, b1, b2)
    gradients = fused_numpy.two_layer_backward(PROBLEM.grad_out.numpy(), x, w1, w2, b1, a)
    names = ("y", "grad_x", "grad_w1", "grad_w2", "grad_b1", "grad_b2")
    return dict(zip(names, map(torch.from_numpy, (y, *gradients)), strict=True))


FRONT_ENDS = {"torch": torch_results, "numpy": numpy_results}
each_front_end = pytest.mark.parametrize("front_end", FRONT_ENDS)


@pytest.fixture(autouse=True)
def thread_counts_stay():
    before = torch.get_num_threads(), fused_numpy.get_num_threads()
    yield
    torch.set_num_threads(before[0])
    fused_numpy.set_num_threads(before[1])


def check(results):
    for name in WANTED:
        assert_same_bits(name, results[name], WANTED[name])


def check_front_end(front_end):
    check(FRONT_ENDS[front_end]())
    return os.getpid()


def check_in_a_fork(check, *arguments):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check(*arguments)
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            assert status == 0
            return
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child of a fork hangs")


pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"  # Python 3.12 on
)


@each_front_end
def test_the_child_of_a_busy_parent(front_end):
    stop = threading.Event()

    def run(which):
        while not stop.is_set():
            FRONT_ENDS[which]()

    parents = [threading.Thread(target=run, args=(which,)) for which in ("torch", "numpy", "numpy")]
    for thread in parents:
        thread.start()
    try:
        for _ in range(10):
            check_in_a_fork(check_front_end, front_end)
    finally:
        stop.set()
        for thread in parents:
            thread.join()
    check_front_end(front_end)


def strided(*sizes):
    model = FusedTwoLayer(*sizes)
    apart = torch.zeros(2 * sizes[1], 2 * sizes[0])[::2, ::2].copy_(model.linear1.weight.data)
    model.linear1.weight = torch.nn.Parameter(apart)
    return model


FITS = {
    "states": (FusedTwoLayer, 64, {"optimizer": "adam"}),
    "strided": (strided, 64, {}),
    "permutations": (FusedTwoLayer, 200_000, {"batch_size": 100}),
    "weights": (FusedTwoLayer, 100_000, {"sample_weight": torch.ones(100_000).double()}),
}


@pytest.mark.parametrize("fitted", FITS)
def test_fit_in_the_child_of_a_parent_with_threads(fitted):
    """What torch does for it in a child, of whose threads the parent had the others."""
    kind, samples, options = FITS[fitted]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = kind(200 if samples == 64 else 2, 300, 3)
    x, y = torch.randn(samples, model.in_features), torch.randn(samples, 3)
    both = copy.deepcopy(model), copy.deepcopy(model)

    def train(model):
        generator = torch.Generator().manual_seed(1)
        return fit(model, x, y, steps=2, loss="mse_mean", generator=generator, **options)

    wanted = train(both[0])  # the team is there from here on

    def check_losses():
        assert torch.equal(train(both[1]), wanted)
        assert torch.get_num_threads() == 2

    check_in_a_fork(check_losses)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_every_start_method(method):
    for front_end in FRONT_ENDS:
        check_front_end(front_end)  # the parent has its threads
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(check_front_end, [*FRONT_ENDS] * 2)
        assert os.getpid() not in results.get(timeout=60)


class Computing(Dataset):
    def __init__(self, front_end):
        self.front_end = front_end

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return FRONT_ENDS[self.front_end]()["y"]


@each_front_end
def test_the_workers_of_a_data_loader(front_end):
    check_front_end(front_end)
    batches = [*DataLoader(Computing(front_end), batch_size=2, num_workers=2, timeout=SECONDS)]
    for y in torch.cat(batches):
        assert_same_bits("y", y, WANTED["y"])


_EXITS = """
import threading, time
import numpy as np
import twolayer_kernels.numpy as fused_numpy
if {front_end!r} == "torch":
    import torch
    from twolayer_kernels.backends.cpu import _cpu

    # The kernel alone: an operation of torch's own, torch.empty even, may abort here.
    w, y = torch.randn(1000, 1000), torch.empty(1000, 1000)
    call = lambda: _cpu.two_layer_forward(2, w, w, w, None, None, None, y)
else:
    w = [np.ones((1000, 1000), np.float32) for _ in range(3)]
    call = lambda: fused_numpy.two_layer(*w)
fused_numpy.set_num_threads(2)
begun = [threading.Event() for _ in range(3)]


def work(event):
    while True:
        call()
        event.set()


for event in begun:
    threading.Thread(target=work, args=(event,), daemon=True).start()
for event in begun:
    event.wait()
time.sleep({pause})
"""


@each_front_end
def test_a_program_may_end_with_daemon_threads_in_a_kernel(front_end):
    """Where plain NumPy ends cleanly and plain torch aborts."""
    for pause in (0.003,) if front_end == "torch" else (0, 0.001, 0.003):
        code = _EXITS.format(front_end=front_end, pause=pause)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")


# ---- how many processors there are ----


@pytest.mark.parametrize(
    ("files", "own", "wanted"),
    [
        ({}, "0::/\n", np.inf),
        ({"cpu.max": "max 100000"}, "0::/\n", np.inf),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1.5),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 4.0),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a", np.inf),
        (
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"},
            "5:memory:/x\n3:cpu,cpuacct:/a\n0::/\n",
            3.0,
        ),
    ],
)
def test_the_quota_of_control_groups(tmp_path, files, own, wanted):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert _cpu.processor_quota(str(tmp_path), own) == wanted


def in_a_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | environment,
    )
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on this system")
def test_the_affinity_mask_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import twolayer_kernels.numpy as tk\n"
        "from twolayer_kernels import _cpu; print(_cpu.processors(), tk.get_num_threads())"
    )
    assert in_a_process(code) == ["1", "1"]


@pytest.mark.skipif(
    not os.path.exists("/proc/self/task") or _cpu.processors() < 2, reason="not on this system"
)
def test_a_thread_that_is_woken_elsewhere_keeps_all_of_its_processors():
    """It is kept off its caller's processor for the moment of waking up."""
    code = """if True:
        import os, time, pathlib, numpy as np, twolayer_kernels.numpy as tk
        from twolayer_kernels import _cpu
        x, w1, w2 = (np.ones(size, np.float32) for size in ((256, 64), (256, 64), (64, 256)))
        for _ in range(50):
            time.sleep(0.001)  # it falls asleep
            tk.two_layer(x, w1, w2)
        time.sleep(0.01)
        def told(task, name):
            lines = (task / "status").read_text().splitlines()
            return next(line.split()[1] for line in lines if line.startswith(name + ":"))
        tasks = list(pathlib.Path("/proc/self/task").iterdir())
        ours = {told(t, "Cpus_allowed_list") for t in tasks if told(t, "Name") == "twolayer"}
        own = told(pathlib.Path("/proc/self/task") / str(os.getpid()), "Cpus_allowed_list")
        print(ours == {own}, _cpu.times_woken() > 10)
    """
    assert in_a_process(code, TWOLAYER_THREADS="pool") == ["True", "True"]


def test_what_openmp_is_told_counts_at_every_call():
    code = (
        "import twolayer_kernels.numpy as tk\n"
        "from threadpoolctl import threadpool_limits\n"
        "before = tk.get_num_threads()\n"
        "with threadpool_limits(3): inside = tk.get_num_threads()\n"
        "tk.set_num_threads(5)\n"
        "with threadpool_limits(3): named = tk.get_num_threads()\n"
        "print(before, inside, tk.get_num_threads(), named)"
    )
    assert in_a_process(code, OMP_NUM_THREADS="7") == ["7", "3", "5", "5"]


def test_an_engine_that_is_not_there_is_refused():
    code = "import twolayer_kernels._cpu"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TWOLAYER_THREADS": "tbb"},
    )
    assert "TWOLAYER_THREADS must be " in done.stderr.splitlines()[-1]
    assert "'tbb'" in done.stderr


@pytest.mark.parametrize("engine", ["openmp", "pool"])
def test_bits_do_not_depend_on_the_engine(engine):
    code = (
        "import hashlib, torch\n"
        "from tests.problems import fused, randoms; from tests.shapes import Shape\n"
        "problem = randoms(Shape(70, 250, 140, 17), torch.float32, seed=3)\n"
        "torch.set_num_threads(2)\n"
        "values = [t.numpy().tobytes() for t in fused(problem, 'cpu').values()]\n"
        "from twolayer_kernels import FusedTwoLayer, fit\n"
        "torch.manual_seed(0); model = FusedTwoLayer(250, 140, 17)\n"
        "x, y = torch.randn(70, 250), torch.randn(70, 17)\n"
        "values.append(fit(model, x, y, steps=40, lr=1e-4).numpy().tobytes())\n"
        "values += [p.detach().numpy().tobytes() for p in model.parameters()]\n"
        "print(hashlib.sha256(b''.join(values)).hexdigest())"
    )
    assert in_a_process(code, TWOLAYER_THREADS=engine) == in_a_process(code)
