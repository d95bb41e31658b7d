"""Which backend serves a call, who may say so, and what is said when one cannot."""

import builtins
import inspect
import math
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from gfgp_cupy import backend_report, ops, use_backend
from gfgp_cupy.backends import Backend, backend_module, select_backend
from gfgp_cupy.backends.selection import BACKENDS, ENVIRONMENT_VARIABLE, automatic_backend
from gfgp_cupy.backends.small_case import _python_as_it_is, undisturbed
from gfgp_cupy.functional import max_ent_pool2d
from gfgp_cupy.poolings import create_pooling
from tests.support.implementations import needs_cuda
from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG

CPU = torch.device("cpu")
AUTOMATIC = "numba"  # what requirements.txt installs for the CPU


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def served_by(requested: str) -> str:
    """What ``select_backend`` gives for the CPU, or the start of its refusal."""
    try:
        return select_backend(CPU)
    except RuntimeError as error:
        return f"{requested} refused: {error}"


# ---------------------------------------------------------------- the choice


def test_cpu_tensors_take_the_numba_backend():
    assert select_backend(CPU) == AUTOMATIC
    with use_backend("torch"):
        assert select_backend(CPU) == "torch"


@needs_cuda
def test_cuda_tensors_take_the_cupy_backend():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_backend(torch.device("cuda", 0)) == "cupy"


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_the_functions_of_a_backend(name):
    module = backend_module(name)
    contract = {
        function: list(inspect.signature(declared).parameters.values())[1:]  # but self
        for function, declared in vars(Backend).items()
        if inspect.isfunction(declared) and not function.startswith("_")
    }
    assert len(contract) == 5
    for function, parameters in contract.items():
        assert list(inspect.signature(getattr(module, function)).parameters.values()) == parameters


@pytest.mark.parametrize("name", ["Torch", "numpy", "", "cuda"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=rf"'auto', 'cupy', .*'torch', got '{name}'"):
        use_backend(name).__enter__()


def test_backend_that_cannot_serve_a_device_says_why():
    with use_backend("cupy"), pytest.raises(RuntimeError, match=r"'cupy'.*cpu.*CUDA tensors only"):
        max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2)
    with use_backend("cupy"), pytest.raises(RuntimeError, match="'auto'"):
        select_backend(CPU)


# ---------------------------------------------------------------- use_backend


def test_blocks_nest_and_end():
    with use_backend("torch"):
        with use_backend("cupy"):
            with use_backend("auto"):
                assert select_backend(CPU) == AUTOMATIC
            assert "refused" in served_by("cupy")
        assert served_by("torch") == "torch"
    assert served_by("auto") == AUTOMATIC


def test_a_block_ends_with_an_exception_too():
    with pytest.raises(KeyError), use_backend("cupy"):
        raise KeyError
    assert select_backend(CPU) == AUTOMATIC


def test_a_block_can_be_entered_again_and_decorates():
    block = use_backend("torch")
    for _ in range(2):
        with block, block:
            assert select_backend(CPU) == "torch"
        assert select_backend(CPU) == AUTOMATIC

    @use_backend("torch")
    def of_torch(further):
        return [select_backend(CPU), *(of_torch(further - 1) if further else [])]

    assert of_torch(2) == ["torch"] * 3
    assert select_backend(CPU) == AUTOMATIC


def test_functions_that_run_later_are_not_decorated():
    def generator():
        yield

    async def coroutine():
        pass

    async def asynchronous_generator():
        yield

    for function in (generator, coroutine, asynchronous_generator):
        with pytest.raises(TypeError, match=rf"{function.__name__}, whose body .*use_backend\('t"):
            use_backend("torch")(function)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("how", ["block inside", "environment"])
def test_checkpointed_functions_have_the_block_inside(monkeypatch, how, use_reentrant):
    pool = create_pooling("gem", 3, 3, 2, 1)

    def by_torch(x):
        with use_backend("torch"):
            return pool(x)

    def gradient(pooled):
        x = torch.linspace(0.1, 2, 300).reshape(1, 3, 10, 10).requires_grad_()
        pooled(x).square().sum().backward()
        return x.grad

    expected = gradient(by_torch)
    assert not torch.equal(gradient(pool), expected)  # so it tells the backends apart
    function = by_torch
    if how == "environment":
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "torch")
        function = pool
    actual = gradient(lambda x: checkpoint(function, x, use_reentrant=use_reentrant))
    assert torch.equal(actual, expected)


def test_name_is_checked_without_a_block_too():
    with pytest.raises(ValueError, match=r"name must be .*'nonsense'"):
        use_backend("nonsense")


def test_other_threads_are_not_affected():
    entered, checked = threading.Event(), threading.Event()
    seen = {}

    def other():
        entered.wait()
        seen["while the block lasts"] = served_by("auto")
        with use_backend("torch"):
            checked.set()
        seen["after its own block"] = served_by("auto")

    thread = threading.Thread(target=other)
    thread.start()
    with use_backend("cupy"):
        entered.set()
        assert checked.wait(timeout=300)
        assert "refused" in served_by("cupy")
        thread.join(timeout=300)
    assert seen == {"while the block lasts": AUTOMATIC, "after its own block": AUTOMATIC}


# ---------------------------------------------------------------- the environment variable


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_environment_variable(monkeypatch, name):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
    assert select_backend(CPU) == (AUTOMATIC if name == "auto" else name)


def test_environment_variable_asks_by_name(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cupy")
    with pytest.raises(RuntimeError, match=r"'cupy'.*CUDA tensors only"):
        max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2)


@pytest.mark.parametrize("name", ["Torch", "", "cuda"])
def test_unknown_name_in_the_environment(monkeypatch, name):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
    with pytest.raises(ValueError, match=f"{ENVIRONMENT_VARIABLE}.*'auto'.*got '{name}'"):
        max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2)


def test_block_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cupy")
    with use_backend("torch"):
        assert select_backend(CPU) == "torch"
    with use_backend("auto"):
        assert select_backend(CPU) == AUTOMATIC


# ---------------------------------------------------------------- the report


def test_report_tells_of_every_device_and_backend():
    report = backend_report()
    assert re.search(rf"^cpu: {AUTOMATIC}$", report, re.MULTILINE)
    for index in range(torch.cuda.device_count()):
        assert re.search(rf"^cuda:{index} \(.+\): \w+$", report, re.MULTILINE)
    if torch.cuda.device_count() == 0:
        assert re.search("^cuda: .*no device", report, re.MULTILINE)
    for name in BACKENDS:
        assert name in report
    assert re.search(r"cupy: no \(it serves CUDA tensors only\)", report)
    assert torch.__version__ in report


@pytest.mark.parametrize("how", ["block", "environment"])
def test_report_tells_what_is_asked_for(monkeypatch, how):
    assert re.search("requested: auto$", backend_report(), re.MULTILINE)
    if how == "block":
        with use_backend("torch"):
            report = backend_report()
    else:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "torch")
        report = backend_report()
    assert re.search("requested: torch$", report, re.MULTILINE)
    assert re.search("^cpu: torch$", report, re.MULTILINE)


def test_report_tells_that_what_is_asked_for_cannot_be(monkeypatch):
    with use_backend("cupy"):
        report = backend_report()
    assert re.search("^cpu: none, for 'cupy' cannot serve it$", report, re.MULTILINE)
    assert re.search("^  cupy: no", report, re.MULTILINE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cuda")
    with pytest.raises(ValueError, match=rf"{ENVIRONMENT_VARIABLE} must be .*'cuda'"):
        backend_report()


# ---------------------------------------------------------------- without CuPy or Numba


def run_python(program: str) -> str:
    """What a fresh interpreter prints; its failure is the test's."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_without_cupy_cuda_devices_get_the_torch_backend_and_one_warning():
    output = run_python("""
    import sys, warnings
    sys.modules["cupy"] = None  # to import it is now an ImportError, as if it were not installed
    import torch
    from gfgp_cupy import use_backend
    from gfgp_cupy.backends import select_backend
    from gfgp_cupy.functional import max_ent_pool2d

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        print(max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2).item())
    cuda = torch.device("cuda", 0)  # choosing needs no GPU
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print([select_backend(cuda) for _ in range(3)])
    print(len(caught), caught[0].category.__name__, caught[0].message)
    try:
        with use_backend("cupy"):
            select_backend(cuda)
    except RuntimeError as error:
        print("refused:", error)
    """)
    on_cpu, choices, warning, refusal = output.splitlines()
    assert on_cpu == "1.0"
    assert choices == "['torch', 'torch', 'torch']"
    assert re.search("1 RuntimeWarning .*cuda:0.*'torch'.*'cupy'.*pip install cupy", warning)
    assert re.search("refused: .*'cupy'.*cuda:0.*pip install cupy", refusal)


@needs_cuda
def test_cupy_that_cannot_be_imported_is_the_reason_given(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda is of another century')")
    output = run_python(f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import warnings
    import torch
    from gfgp_cupy import backend_report, use_backend
    from gfgp_cupy.functional import max_ent_pool2d
    input = torch.ones(1, 1, 2, 2, device="cuda", requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            max_ent_pool2d(input, 1.0, 2).sum().backward()
    print(len(caught), caught[0].filename, caught[0].message)
    print(input.grad.sum().item())
    try:
        with use_backend("cupy"):
            max_ent_pool2d(input, 1.0, 2)
    except RuntimeError as error:
        print(error)
    print(backend_report())
    """)
    warning, gradient, refusal, *report = output.splitlines()
    assert re.match("1 <string> .*'torch'.*'cupy'.*another century", warning)
    assert gradient == "2.0"
    assert re.search("'cupy'.*another century", refusal)
    assert any(re.search(r"cupy: no .*another century", line) for line in report)
    assert any(re.match(r"cuda:0 .*: torch$", line) for line in report)


def test_without_numba_cpu_tensors_get_the_torch_backend_and_one_warning():
    output = run_python("""
    import sys, warnings
    sys.modules["numba"] = None  # as good as not installed
    import torch
    from gfgp_cupy import MaxEntPool2d, use_backend
    from gfgp_cupy.backends import select_backend
    from gfgp_cupy.functional import max_ent_pool2d

    input = torch.ones(1, 1, 2, 2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("torch", "numba"):  # by name: served, or refused
            try:
                with use_backend(name):
                    print(max_ent_pool2d(input, 1.0, 2).item())
            except RuntimeError as error:
                print(error)
        print(select_backend(torch.device("meta")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        max_ent_pool2d(input, 1.0, 2).sum().backward()
        MaxEntPool2d(2)(input)
        print(select_backend(torch.device("cpu")))
    print(len(caught), caught[0].category.__name__, caught[0].filename, caught[0].message)
    """)
    served, refusal, of_meta, choice, warning = output.splitlines()
    assert served == "1.0"
    assert re.search("'numba' was asked for.*cpu.*pip install numba", refusal)
    assert of_meta == choice == "torch"
    assert warning.startswith("1 RuntimeWarning <string> ")
    assert re.search(r"on cpu.*slower 'torch'.*pip install numba.*gfgp-cupy\[cpu\]", warning)


def test_numba_that_cannot_be_imported_is_the_reason_given(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs an older NumPy')")
    output = run_python(f"""
    import sys, warnings
    sys.path.insert(0, {str(tmp_path)!r})
    import torch
    from gfgp_cupy.functional import max_ent_pool2d

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print(max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2).item())
    print(len(caught), caught[0].message)
    """)
    assert re.fullmatch(r"1\.0\n1 .*'torch'.*'numba'.*needs an older NumPy\n", output)


EXPORTED = ("max_ent_unguided", "gem", "gauss_unguided")


def test_exported_programs_run_without_numba(tmp_path):
    for name in EXPORTED:
        layer, inputs = create_pooling(name, 4, 3, 2, 1), (torch.rand(2, 4, 8, 8),)
        program = torch.export.export(layer, inputs, strict=False)
        torch.export.save(program, tmp_path / f"{name}.pt2")
    output = run_python(f"""
    import sys, warnings
    from pathlib import Path
    sys.modules["numba"] = None
    import torch
    from gfgp_cupy import use_backend
    from gfgp_cupy.poolings import create_pooling

    input = torch.rand(2, 4, 8, 8, requires_grad=True)
    for name in {EXPORTED}:
        program = torch.export.load(Path({str(tmp_path)!r}, f"{{name}}.pt2")).module()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            actual = program(input)
            grads = torch.autograd.grad(actual.square().sum(), (input, *program.parameters()))
        print([str(each.message) for each in caught if "numba" in str(each.message)])
        layer = create_pooling(name, 4, 3, 2, 1)
        with use_backend("torch"):
            expected = layer(input)
        expected_grads = torch.autograd.grad(
            expected.square().sum(), (input, *layer.parameters())
        )
        torch.testing.assert_close((actual, *grads), (expected, *expected_grads))
    """)
    first, *others = output.splitlines()
    assert re.search(r"'torch' backend, because 'numba' cannot: .*pip install numba", first)
    assert others == ["[]", "[]"]


MAX_ENT_CALL = ([2, 2], [2, 2], [0, 0], False)


def test_operator_that_is_told_a_backend_without_numba():
    output = run_python(f"""
    import sys
    sys.modules["numba"] = None
    import torch
    import gfgp_cupy

    try:
        torch.ops.gfgp_cupy.max_ent_pool2d(
            torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1), *{MAX_ENT_CALL}, "numba"
        )
    except RuntimeError as error:
        print(error)
    """)
    assert re.search("'numba'.*cannot serve cpu.*pip install numba.*'auto'.*export it anew", output)


@pytest.mark.parametrize(
    ("name", "device"),
    [("cupy", "cpu"), pytest.param("numba", "cuda", marks=needs_cuda)],
)
def test_operator_that_is_told_a_backend_for_another_device(name, device):
    """As an exported program is that was moved."""
    x, lam = torch.ones(1, 1, 2, 2, device=device), torch.ones(1, 1, 1, 1, device=device)
    grad, window = torch.ones_like(lam), MAX_ENT_CALL
    for operator, *arguments in (
        (ops.max_ent_pool2d, x, lam, *window, name),
        (ops.max_ent_pool2d_with_spread, x, lam, *window, name),
        (ops.max_ent_pool2d_backward, grad, x, lam, *window, name, (True, True)),
        (ops.max_ent_pool2d_lam_backward, grad, grad, lam, name),
    ):
        with pytest.raises(RuntimeError, match=f"'{name}'.*cannot serve {device}.*'auto'"):
            operator(*arguments)


def test_operator_that_is_told_no_backend():
    with pytest.raises(ValueError, match=r"backend must be one of 'auto', .*got 'Numba'"):
        ops.max_ent_pool2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1), *MAX_ENT_CALL, "Numba")


@pytest.mark.slow
def test_a_compiled_call_without_numba_warns_and_stays_one_graph():
    output = run_python("""
    import sys, warnings
    sys.modules["numba"] = None
    import torch
    from gfgp_cupy.functional import max_ent_pool2d

    @torch.compile(backend="eager", fullgraph=True)
    def pool(input):
        return max_ent_pool2d(input, 1.0, 2)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print([pool(torch.ones(1, 1, 2, size)).shape[3] for size in (2, 4)])
    print(sum("'numba'" in str(warning.message) for warning in caught))
    """)
    assert output == "[1, 2]\n1\n"


# ---------------------------------------------------------------- the small case


def test_numba_that_may_not_compile_is_not_taken():
    output = run_python("""
    import os, warnings
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    import torch
    from gfgp_cupy import GFGPMaxEntPool2d, backend_report, use_backend

    pool, input = GFGPMaxEntPool2d(2, 2), torch.ones(8, 2, 4, 4, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool(input).sum().backward()
    print(len(caught), caught[0].message)
    print(backend_report())
    try:
        with use_backend("numba"):
            pool(input)
    except RuntimeError as error:
        print(error)
    """)
    warning, *report, refusal = output.splitlines()
    assert re.match("1 .*'torch' backend, because 'numba' cannot: .*NUMBA_DISABLE_JIT", warning)
    assert "cpu: torch" in report
    assert any(re.match("  numba: no .*unset NUMBA_DISABLE_JIT", line) for line in report)
    assert re.match("backend 'numba' was asked for but cannot serve cpu.*DISABLE_JIT", refusal)


def test_numba_that_cannot_compile_is_not_taken():
    output = run_python("""
    import warnings
    import numba, torch
    from gfgp_cupy import MaxEntPool2d, backend_report

    def cfunc(*args, **kwargs):
        raise OSError("LLVM is of\\nanother century")
    numba.cfunc = cfunc

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print(MaxEntPool2d(2)(torch.ones(1, 1, 2, 2)).item())
    print(len(caught), caught[0].message)
    print(backend_report())
    """)
    number, warning, *report = output.splitlines()
    assert number == "1.0"
    reason = "Numba cannot compile: OSError: LLVM is of another century"
    assert re.match(f"1 .*'torch' backend, because 'numba' cannot: {reason}$", warning)
    assert "cpu: torch" in report
    assert f"  numba: no ({reason})" in report


def under_grad(ask):
    def loss(x):
        reasons.append(ask())
        return x.sum()

    reasons = []
    torch.func.grad(loss)(torch.ones(2))
    return reasons[0]


def under_vmap(ask):
    def row(x):
        reasons.append(ask())
        return x

    reasons = []
    torch.func.vmap(row)(torch.ones(2, 3))
    return reasons[0]


def under_trace(ask):
    def traced(x):
        reasons.append(ask())
        return x + 1

    reasons = []
    graph = torch.jit.trace(traced, (torch.ones(2),), check_trace=False).graph
    assert len([node for node in graph.nodes() if node.kind() != "prim::Constant"]) == 1
    return reasons[0]


def under_export(ask):
    class Asks(torch.nn.Module):
        def forward(self, x):
            reasons.append(ask())
            return x + 1

    reasons = []
    torch.export.export(Asks(), (torch.ones(2),), strict=False)
    return reasons[0]


def under_dispatch(ask):
    class Asks(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            reasons.append(ask())
            return operator(*args, **(kwargs or {}))

    reasons = []
    with Asks():
        torch.ones(2)
    return reasons[0]


def under_mode(make_mode):
    def answer(ask):
        with make_mode():
            return ask()

    return answer


@contextmanager
def default_device_meta():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_type(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(
    "ask_under",
    {
        "fake tensors": under_mode(FakeTensorMode),
        "inference": under_mode(torch.inference_mode),
        "default device": under_mode(default_device_meta),
        "device block": under_mode(lambda: torch.device("meta")),
        "default float16": under_mode(lambda: default_type(torch.float16)),
        "default bfloat16": under_mode(lambda: default_type(torch.bfloat16)),
        "deterministic": under_mode(deterministic),
        "forward mode": under_mode(torch.autograd.forward_ad.dual_level),
        "grad": under_grad,
        "vmap": under_vmap,
        "inside a dispatch": under_dispatch,
        "torch.jit.trace": under_trace,
        "torch.export": under_export,
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_small_case_is_run_whatever_is_on(backend, ask_under):
    unavailable = backend_module(backend).unavailable
    unavailable.cache_clear()
    try:
        assert ask_under[1](lambda: unavailable(CPU)) is None
        assert unavailable.cache_info().currsize == 1
    finally:
        unavailable.cache_clear()


def no_memory_of_pytorch():
    torch.empty(2**60, dtype=torch.uint8)


def no_memory_of_python():
    raise MemoryError


@pytest.mark.parametrize("name", ["numba", "auto"])
@pytest.mark.parametrize("fill", [no_memory_of_pytorch, no_memory_of_python])
def test_memory_that_is_full_at_the_first_use_is_forgotten(monkeypatch, name, fill):
    unavailable = backend_module("numba").unavailable
    unavailable.cache_clear()
    automatic_backend.cache_clear()
    try:
        with use_backend(name):
            with monkeypatch.context() as first:
                first.setattr(backend_module("numba"), "run_small_case", lambda *_, **__: fill())
                with pytest.raises(torch.OutOfMemoryError, match="memory of cpu is too full"):
                    max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2)
                assert "too full" in backend_report()
            assert max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2).item() == 1
            assert select_backend(CPU) == "numba"
    finally:
        unavailable.cache_clear()
        automatic_backend.cache_clear()


PYTHONS_OWN = (builtins.max, builtins.min, math.pow)


def replaceable():
    return builtins.max, builtins.min, math.pow


@pytest.fixture
def _as_found():
    yield
    builtins.max, builtins.min, math.pow = PYTHONS_OWN


@pytest.mark.usefixtures("_as_found")
def test_what_an_export_replaces_is_as_it_was_after_the_small_case():
    class Looks(torch.nn.Module):
        def forward(self, x):
            before = replaceable()
            with undisturbed():
                assert replaceable() == PYTHONS_OWN
            seen.append(replaceable() == before)
            return x + 1

    seen = []
    torch.export.export(Looks(), (torch.ones(2),), strict=False)
    assert seen == [True]
    assert replaceable() == PYTHONS_OWN


@pytest.mark.usefixtures("_as_found")
def test_what_another_threads_export_replaced_does_not_come_back():
    class Waits(torch.nn.Module):
        def forward(self, x):
            traces.set()
            assert is_run.wait(HANG)
            return x + 1

    traces, is_run = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=torch.export.export, args=(Waits(), (torch.ones(2),)), kwargs={"strict": False}
    )
    thread.start()
    assert traces.wait(HANG)
    # Alone: modes that PyTorch has for all threads would be put aside, too, and the export fail.
    with CPU, _python_as_it_is():  # a device is a mode of functions
        assert replaceable() == PYTHONS_OWN
        is_run.set()
        thread.join()
    assert replaceable() == PYTHONS_OWN


def test_small_case_of_a_device_that_is_not_there():
    absent = torch.device("cuda", torch.cuda.device_count())
    reason = backend_module("torch").unavailable(absent)
    assert reason.startswith("PyTorch cannot compute on it: ") and "\n" not in reason
    with use_backend("torch"), pytest.raises(RuntimeError, match="cannot compute on it"):
        select_backend(absent)
