"""The version, in one place: the package, `--version`, `welcome` and the metrics read it."""

__version__ = "0.1.0"
