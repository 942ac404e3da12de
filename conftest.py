"""Loads the notebook plugin; pytest accepts `pytest_plugins` in the root conftest only."""

pytest_plugins = ["tests.notebooks.plugin"]
