"""Darwin Level L5, cognitive completion: what a document leaves implicit made explicit, and checked where it can be."""

from davinci.data.l5_completion import by_llm as by_llm
from davinci.data.l5_completion import worked_steps as worked_steps
