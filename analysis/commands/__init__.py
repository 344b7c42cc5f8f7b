"""One module a command of ``python -m analysis``: ``add`` declares it, ``run`` does it.

The modules are imported for every ``--help``, so what is heavy (pandas, matplotlib, scipy) is imported in ``run``.
"""
