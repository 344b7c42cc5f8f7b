"""The commands of ``python -m davinci``, a module each: ``run(options, store) -> exit status``."""
