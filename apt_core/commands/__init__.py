"""One file per command of ``python -m apt_core`` that needs more than a few lines."""
