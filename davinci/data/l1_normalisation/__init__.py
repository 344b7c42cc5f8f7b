"""Darwin Level L1, normalisation: markup, encodings and Unicode to plain text; nothing readable is dropped."""

from davinci.data.l1_normalisation import encodings, html, markdown, unicode  # noqa: F401
