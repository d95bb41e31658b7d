"""The table of what works names tests that exist."""

import ast
import re

from tests.support.paths import REPOSITORY

LINES = (REPOSITORY / "docs/operator-support.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("| ")][1:]


def named_tests(row):
    """Pairs of file and test; a name without a file is in the file before."""
    file = None
    for path, name in re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", row.split("|")[3]):
        file = path or file
        yield file, name


def names_in(file):
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    return {
        (file, node.name)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_row_names_its_tests():
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(list(named_tests(row))) == row.count("::") > 0, row


def test_named_tests_exist():
    named = {test for row in ROWS for test in named_tests(row)}
    assert named <= set().union(*(names_in(file) for file, _ in named))
