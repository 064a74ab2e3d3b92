"""The site: README, guides and the public names, from the repository as it is.

    sphinx-build -c docs . build/site

The source folder is the repository itself, so that a link in a page means the same on the site.
"""

import inspect
import pathlib
import shutil

import keras

import keras_mnm

project, release = "keras_mnm", keras_mnm.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.githubpages"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
html_theme = "furo"
html_title = f"keras_mnm {release}"
myst_heading_anchors = 3
default_role = "literal"
# `Returns` as prose: what stands before a colon is not a type here.
napoleon_custom_sections = [("Call arguments", "params_style"), "Returns"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False

PAGES = ["docs/layers", "docs/from-lstm", "docs/training", "docs/choosing", "docs/deployment"]
PAGES += ["docs/distributed", "docs/performance", "docs/algorithmic_tasks"]
PAGES += ["docs/experiments", "docs/babi", "docs/maze", "docs/tf_agents", "docs/api"]
PAGES += ["CONTRIBUTING", "CHANGELOG"]


def add_contents(app, page, source):
    """The README is the front page. It has no table of contents of its own, which GitHub shows."""
    if page == root_doc:
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", *PAGES, "```\n"])


def name_front_page(app, exception):
    """Servers of static files show `index.html`."""
    if exception is None and app.builder.name == "html":
        shutil.copy(pathlib.Path(app.outdir, "README.html"), pathlib.Path(app.outdir, "index.html"))


def own_arguments(app, what, name, obj, options, signature, return_annotation):
    """A layer's arguments are those of `__init__`; Keras gives all layers one `__new__`."""
    if what == "class" and issubclass(obj, keras.layers.Layer):
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        return str(inspect.Signature(parameters)), return_annotation
    return None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", own_arguments)
    app.connect("source-read", add_contents)
    app.connect("build-finished", name_front_page)
