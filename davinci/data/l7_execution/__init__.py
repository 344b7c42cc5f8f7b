"""Darwin Level L7, the paper's frontier: items validated by running them, as an example."""

from davinci.data.l7_execution import validated as validated
