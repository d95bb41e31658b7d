"""The documentation: `sphinx-build -W docs OUT_DIR`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

project = "gfgp-cupy"
html_title = project
html_theme = "furo"
exclude_patterns = ["requirements.txt"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook shows the outputs that it is committed with

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]

nitpicky = True
# Theirs to document.
nitpick_ignore_regex = [("py:.*", r"(torch|collections|contextlib|os|pathlib)\..*")]
# As nn.ModuleDict's signature calls it; and tuples of a size an axis.
nitpick_ignore = [("py:class", "Module"), ("py:class", "Sizes")]


def link_from_docs(app, path, docname, content):
    """README's links are relative to the repository, the pages that include it are not."""
    content[0] = re.sub(r"\]\((?!https?:|#)", "](../", content[0])


def resolve_by_last_name(app, env, node, contnode):
    """Names are documented where they are exported, and docstrings name them as code does."""
    if node["refdomain"] != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    node["refspecific"] = True  # in whatever module
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], name, node, contnode
    )


def setup(app):
    app.connect("include-read", link_from_docs)
    app.connect("missing-reference", resolve_by_last_name)
