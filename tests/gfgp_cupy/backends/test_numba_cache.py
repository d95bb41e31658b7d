"""Numba's cache on disk: pooling works without it, and it is never that of other sources.

Each check runs in a new process, which has compiled nothing yet.
"""

import dataclasses
import importlib
import inspect
import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends import select_backend
from gfgp_cupy.backends.numba.loading import family_of
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from tests.support.numba_compilation import cache_in
from tests.support.paths import REPOSITORY
from tests.support.warm_python import run_warm

TILES = pool_geometry(2)

# ---------------------------------------------------------------- without it


def in_new_process(check, *arguments):
    run_warm(check, arguments, count=1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits the size of files as POSIX does")
def test_pools_where_nothing_can_be_written(tmp_path):
    in_new_process(check_without_room, tmp_path)


def check_without_room(rank, folder):
    import resource

    cache_in(folder)
    # Enough for an index, and for no function.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    with pytest.warns(RuntimeWarning, match=r"cache .* cannot be .* written .*NUMBA_CACHE_DIR"):
        assert select_backend(torch.device("cpu")) == "numba"
    with pytest.warns(RuntimeWarning, match="cache"):
        check_pools(torch.float64)
    check_pools(torch.float64)
    assert not list(folder.rglob("*.nbc"))


def check_pools(dtype):
    input = torch.arange(16, dtype=dtype).reshape(1, 1, 4, 4)
    output = backend.forward(input, torch.zeros(1, 1, 1, 1, dtype=dtype), TILES)
    assert output.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with a cache of what ``check_pools`` needs."""
    folder = tmp_path_factory.mktemp("cache")
    in_new_process(check_hits, folder, 0)
    return folder


def check_hits(rank, folder, hits):
    """Without a warning."""
    cache_in(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pools(torch.float32)
    code = family_of("tiles", MAX_ENT.cpu, MAX_ENT.spread).forward("float32").code
    assert code.cache_hits == hits


DAMAGES = {
    "empty index": ("*.nbi", lambda content: b""),
    "half the code": ("*.nbc", lambda content: content[: len(content) // 2]),
    "other bytes": ("*.nb?", lambda content: bytes(reversed(content))),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_removed_and_replaced(filled, tmp_path, damage):
    pattern, damaged = DAMAGES[damage]
    folder = tmp_path / "cache"
    shutil.copytree(filled, folder)
    files = list(folder.rglob(pattern))
    assert files
    for file in files:
        file.write_bytes(damaged(file.read_bytes()))
    in_new_process(check_pools_beside_damage, folder)
    assert not list(folder.rglob("*.nb?"))  # of one function, and whole or not
    if damage == "other bytes":  # what follows is the same of each
        in_new_process(check_hits, folder, 0)
        in_new_process(check_hits, folder, 1)


def check_pools_beside_damage(rank, folder):
    cache_in(folder)
    with pytest.warns(RuntimeWarning, match=r"Numba's cache .* damaged file .*removed"):
        check_pools(torch.float32)


@pytest.mark.slow
def test_what_cannot_be_compiled_says_why(tmp_path):
    in_new_process(check_error_of_compiling, tmp_path)


def check_error_of_compiling(rank, folder):
    cache_in(folder)
    sys.path.insert(0, str(folder))
    (folder / "wrong.py").write_text(WINDOW_FUNCTION.replace("summary[1] +", "unheard_of +"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception, match="unheard_of"):
            family_of("tiles", "wrong", "root").forward("float32")


# ---------------------------------------------------------------- of other sources

WINDOW_FUNCTION = (REPOSITORY / "tests" / "support" / "max_ent_function.py").read_text()

SOURCES = {
    "outside/__init__.py": """
        import library.tables
        from helper import centre
        from constants import SCALE, TABLE
        """
    + WINDOW_FUNCTION.replace(
        "return summary[1] +", "return SCALE * TABLE[0][0] * centre(summary) +"
    ).replace("return lam\n", "return library.tables.same(lam)\n", 1),
    "outside/windows.py": "from gfgp_cupy.backends.numba.max_ent.windows import *\n",
    "helper.py": """
        from gfgp_cupy.backends.numba.compile import inlined
        import further

        @inlined
        def centre(summary):
            return further.second(summary)
        """,
    "further.py": """
        from gfgp_cupy.backends.numba.compile import inlined

        @inlined
        def second(summary):
            return summary[1]
        """,
    "constants.py": "SCALE = 1.0\nTABLE = ((1.0, 2.0), 3.0)\nUNUSED = 1\n",
    "library/tables.py": """
        from gfgp_cupy.backends.numba.compile import inlined

        @inlined
        def same(lam):
            return lam
        """,
    "unrelated.py": "",
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The name on disk of a function for windows that is made of ``SOURCES``, after a change."""
    monkeypatch.syspath_prepend(tmp_path)
    # Sources that change in the second in which they were written need not be seen to have.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_sources(tmp_path)

    def name_after(file, before, after):
        source = (tmp_path / file).read_text()
        assert before in source
        (tmp_path / file).write_text(source.replace(before, after))
        forget_sources()
        forward = family_of.__wrapped__("windows", "outside", "root").forward
        return inspect.getclosurevars(forward.__wrapped__).nonlocals["function"].__qualname__

    yield name_after
    forget_sources()


def write_sources(folder):
    for name, source in SOURCES.items():
        file = Path(folder, name)
        file.parent.mkdir(exist_ok=True)
        head, _, rest = source.partition('"""Max-Ent')
        file.write_text(unindented(head) + ('"""Max-Ent' + rest if rest else ""))


def unindented(source):
    return "\n".join(line.removeprefix(" " * 8) for line in source.splitlines()) + "\n"


def forget_sources():
    own = {name.partition("/")[0].removesuffix(".py") for name in SOURCES}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    importlib.invalidate_caches()


CHANGES = {
    "itself": ("outside/__init__.py", "return SCALE *", "return 1.0 + SCALE *"),
    "its package": ("outside/windows.py", "import *", "import *  # all"),
    "what it calls": ("helper.py", "return further", "return 1.0 + further"),
    "what that calls": ("further.py", "return summary[1]", "return 1.0 + summary[1]"),
    "a constant": ("constants.py", "SCALE = 1.0", "SCALE = 2.0"),
    "a table": ("constants.py", "(1.0, 2.0)", "(1.5, 2.0)"),
    "by its package's name": ("library/tables.py", "return lam", "return 2.0 * lam"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_of_what_it_is_made_of_has_its_own_code_on_disk(outside, change):
    before = outside("unrelated.py", "", "")
    assert outside(*change) != before


def test_other_changes_do_not_matter(outside):
    before = outside("unrelated.py", "", "")
    assert outside("unrelated.py", "", "A = 1\n") == before
    assert outside("constants.py", "UNUSED = 1", "UNUSED = 20") == before


@pytest.mark.slow
def test_second_process_compiles_nothing_unless_a_helper_has_changed(tmp_path):
    write_sources(tmp_path)
    in_new_process(check_pools_to, tmp_path, [2.5, 4.5, 10.5, 12.5], 0)
    in_new_process(check_pools_to, tmp_path, [2.5, 4.5, 10.5, 12.5], 1)
    helper = tmp_path / "helper.py"
    helper.write_text(helper.read_text().replace("return further", "return 100.0 + further"))
    in_new_process(check_pools_to, tmp_path, [102.5, 104.5, 110.5, 112.5], 0)


def check_pools_to(rank, folder, expected, hits):
    """It finds so many functions on disk, of one."""
    cache_in(folder / "cache")
    sys.path.insert(0, str(folder))
    function = dataclasses.replace(MAX_ENT, name="outside", cpu="outside")
    input = torch.arange(16.0).reshape(1, 1, 4, 4)
    output = backend.forward(input, torch.zeros(1, 1, 1, 1), TILES, function)
    assert output.flatten().tolist() == expected
    assert family_of("tiles", "outside", MAX_ENT.spread).forward("float32").code.cache_hits == hits
