"""Sphinx: furo for the look, MyST for Markdown; a warning is an error."""

import mltraq_ds

project = "mltraq_ds"
author = "the mltraq_ds authors"
copyright = f"2026, {author}"
release = mltraq_ds.__version__
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]
html_title = f"{project} {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
napoleon_google_docstring = False
