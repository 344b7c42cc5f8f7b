"""The figures: what each shows as plain data, and how it is drawn.

`FIGURES` is read for ``--help``, so nothing is imported here.
"""

# Number -> what it plots, and the module here that has ``figure_N`` (and ``published_N``, of those in `PUBLISHED`).
FIGURES = {
    "3": ("sources by Darwin Level, those that the sweep reads filled", "levels"),
    "4": ("overall and domain scores over stage 1, gains annotated", "over_stages"),
    "5": ("training loss and gradient norm over the steps of stage 1", "training"),
    "6": ("overall and domain scores over stage 2, over the end of stage 1", "over_stages"),
    "7": ("arms since they parted, overall and by domain, gains annotated", "arms"),
    "8": ("benchmarks (light) and domain means (dark) over stage 1", "by_benchmark"),
    "9": ("arms since they parted, a panel a domain, beside the published gains", "arms"),
    "10": ("benchmarks (light) and domain means (dark) over stage 2", "by_benchmark"),
    "11a": ("radar of six benchmarks, a line an arm", "radar"),
    "11b": ("overall and domain scores over the share of QA", "qa_ratio"),
    "12": ("one set of questions under both protocols, by model", "protocols"),
    "13": ("arms since they parted, the difference to the baseline annotated", "arms"),
}
PUBLISHED = ("3", "9", "11b", "12", "13")
