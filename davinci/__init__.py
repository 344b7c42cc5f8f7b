"""daVinci: controlled ablations of LLM pretraining."""

__version__ = "0.1.0"
