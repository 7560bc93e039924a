"""Configurations: files that inherit from one another, and the modules that they ask for."""

__all__: list[str] = []
