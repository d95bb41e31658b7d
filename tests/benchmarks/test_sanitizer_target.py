"""What compute-sanitizer watches: every kernel in every way, and little enough for its time."""

import collections
import math
import re

import pytest
import torch

from benchmarks import sanitizer_target
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from training.records.environment import REPOSITORY

MOST_PROGRAMS = 300
"""At 0.27 seconds of a processor each, six processes compile them in fourteen seconds."""


@pytest.fixture(scope="module")
def launches():
    """Those of every case, by what makes a program of its own: the case and the launch."""
    programs = {}
    for case in sanitizer_target.cases():
        for launch in planned(case):
            programs.setdefault((launch.name, launch.source, launch.defines), (case, launch))
    return programs


def planned(case):
    """The launches of ``exercise``, none of them run."""
    noted = []
    function, axes = sanitizer_target.FUNCTIONS[case.function], len(case.sizes) - 2
    input = sanitizer_target.input_of(case, "cpu").detach()
    geometry = pool_geometry(*case.window, axes=axes)
    dtype, ones = torch.promote_types(case.dtype, torch.float32), (1,) * axes
    one = torch.ones(1, 1, *ones, dtype=dtype)
    output = passes.forward(input, one, geometry, noted.append, function)
    shape = output.shape if case.lam_in_plane else (*output.shape[:2], *ones)
    lam = torch.ones(shape, dtype=dtype)
    rest = {"run": noted.append, "function": function}
    passes.forward(input, lam, geometry, **rest)
    passes.backward(output, input, lam, geometry, (True, True), **rest)
    if not case.lam_in_plane:
        _, spread = passes.forward_with_spread(input, lam, geometry, **rest)
        passes.lam_backward(output, spread, lam, **rest)
        passes.backward(output, input, lam, geometry, (True, False), mean_grad=lam, **rest)
    return noted


OF_ONE_LAYOUT = {
    "marching_rows": {torch.contiguous_format},
    "marching_channels": {torch.channels_last},
}
"""Kernels that serve one memory format, by a part of their names."""


def test_every_kernel_is_watched_in_its_layouts_and_types(launches):
    seen = collections.defaultdict(set)
    for case, launch in launches.values():
        if case.function == "max_ent":
            layout = case.layout
            if layout is torch.channels_last_3d:
                layout = torch.channels_last
            seen[launch.name].add((layout, case.dtype))
    sources = (REPOSITORY / "gfgp_cupy" / "kernels").glob("*.cu")
    declared = re.compile(r"__global__.*?\sKERNEL\((\w+)\)", re.DOTALL)
    kernels = {name for source in sources for name in declared.findall(source.read_text())}
    written = {f"max_ent_pool{3 if 'volume' in name else 2}d_{name}" for name in kernels}
    assert len(written) >= 8
    assert seen.keys() == written
    for name, ways in seen.items():
        layouts, dtypes = map(set, zip(*ways, strict=True))
        alone = [layout for part, layout in OF_ONE_LAYOUT.items() if part in name]
        assert layouts == (alone[0] if alone else set(sanitizer_target.LAYOUTS)), name
        assert dtypes >= {torch.float32, torch.bfloat16}, name


def test_every_window_function_is_watched_where_threads_share_what_they_read(launches):
    families = ("disjoint", "marching", "overlapping", "whole_planes", "lam_gradient")
    for name in sanitizer_target.FUNCTIONS:
        names = {launch.name for case, launch in launches.values() if case.function == name}
        for family in families:
            assert any(each.startswith(f"{name}_pool2d_{family}") for each in names)


def test_windows_of_the_networks_are_watched_in_every_type():
    for window in sanitizer_target.NETWORKS:
        cases = [
            case
            for case in sanitizer_target.cases()
            if case.window == window and case.function == "max_ent" and len(case.sizes) == 4
        ]
        assert {case.dtype for case in cases} == {
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
        }
        assert {case.sizes for case in cases} == {
            sanitizer_target.EVEN,
            sanitizer_target.ODD,
            sanitizer_target.STRIPS,
        }
        assert {case.aligned for case in cases} == {case.lam_in_plane for case in cases}


def test_programs_compile_within_the_stage(launches):
    assert len(launches) <= MOST_PROGRAMS


def test_cases_run():
    cases = list(sanitizer_target.cases())
    for case in cases[:: math.isqrt(len(cases))]:
        sanitizer_target.exercise(case, "cpu")
    for case in cases:
        input = sanitizer_target.input_of(case, "cpu")
        assert input.is_contiguous(memory_format=case.layout)
        assert (input.data_ptr() % 16 == 0) == case.aligned
