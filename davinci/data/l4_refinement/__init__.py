"""Darwin Level L4, generative refinement: the same content, written better, document by document."""

from davinci.data.l4_refinement import by_llm as by_llm
from davinci.data.l4_refinement import by_rules as by_rules
