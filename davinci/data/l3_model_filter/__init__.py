"""Darwin Level L3, filtering by a trained model."""

from davinci.data.l3_model_filter import by_classifier as by_classifier
from davinci.data.l3_model_filter import by_grade as by_grade
