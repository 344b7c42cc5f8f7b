"""Darwin Level L2, rules: what is dropped for a stated reason that needs no model."""

from davinci.data.l2_rules import (  # noqa: F401
    blocklists,
    c4,
    duplicate_lines,
    fineweb,
    gopher,
    language,
    length,
    main_content,
    near_duplicates,
    personal_information,
    url_duplicates,
)
