"""Hydra and sweep files -> `config.Run` objects. With `hydra_plugins` the only code that imports hydra or omegaconf."""
