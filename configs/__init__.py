"""Configs: each file is a docstring with its command, and `get_config(category)`."""
