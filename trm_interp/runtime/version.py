"""Version of this package, which results carry."""

__version__ = "0.1.0"
