"""A few rows of our own in the schema of each data set of the paper's suite, by task and split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

PLANETS = ["Mercury", "Venus", "Earth", "Mars"]


def _mmlu(count: int) -> Rows:
    return [
        {"question": f"Which planet has place {n % 4 + 1} from the sun? ({n})", "choices": PLANETS, "answer": n % 4,
         "subject": "astronomy"}
        for n in range(count)
    ]  # fmt: skip


def _mmlu_pro(count: int) -> Rows:
    subjects = ["biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history"]
    subjects += ["law", "math", "other", "philosophy", "physics", "psychology"]
    return [
        {"question": f"In {subject}, how much is {n} plus one?", "options": [str(n + k) for k in range(10)],
         "answer": "B", "answer_index": 1, "category": subject,
         "cot_content": f"A: Let's think step by step. {n} plus one is {n + 1}. The answer is (B)."}
        for subject in subjects
        for n in range(count)
    ]  # fmt: skip


def _agieval(count: int) -> Rows:
    return [
        {"query": f"Q: Which is even? Answer Choices: (A){2 * n} (B){2 * n + 1}\nA: Among A through B, the answer is",
         "choices": [f"(A){2 * n}", f"(B){2 * n + 1}"], "gold": [0]}
        for n in range(count)
    ]  # fmt: skip


def _race() -> Rows:
    problems = [
        {"question": "The dog is  _  .", "answer": "B", "options": ["blue", "brown", "green", "red"]},
        {"question": "Where does it sleep?", "answer": "A", "options": ["indoors", "outdoors", "upstairs", "nowhere"]},
    ]
    return [{"article": f"A brown dog sleeps in house {n}.", "problems": repr(problems)} for n in range(3)]


def _gpqa(count: int) -> Rows:
    return [
        {"Question": f"What is {n} times ten?", "Correct Answer": str(10 * n + 10), "Explanation": "Count in tens.",
         **{f"Incorrect Answer {k}": str(10 * n + 10 + k) for k in (1, 2, 3)}}
        for n in range(count)
    ]  # fmt: skip


def _code(count: int) -> Rows:
    return [
        {"task_id": f"own/{n}", "prompt": f"def add_{n}(x):\n", "canonical_solution": f"    return x + {n}\n",
         "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n", "entry_point": f"add_{n}"}
        for n in range(count)
    ]  # fmt: skip


def _sums(asked: str, solved: str, count: int, **more: Any) -> Rows:
    return [
        {
            asked: f"Ann has {n} pears and buys 2. How many has she?",
            solved: f"{n} + 2 = {n + 2}\n#### {n + 2}",
            **more,
        }
        for n in range(count)
    ]


def _openbook(count: int) -> Rows:
    return [
        {"id": str(n), "question_stem": f"Ice ({n}) is made of", "answerKey": "C",
         "choices": {"text": ["sand", "wood", "water", "iron"], "label": ["A", "B", "C", "D"]}}
        for n in range(count)
    ]  # fmt: skip


# By lm-eval's name of the task (or group, whose tasks then share the files), then by split.
ROWS: dict[str, dict[str, Rows]] = {
    "mmlu": {"test": _mmlu(3), "dev": _mmlu(5)},
    "mmlu_stem": {"test": _mmlu(3), "dev": _mmlu(5)},
    "mmlu_pro": {"test": _mmlu_pro(2), "validation": _mmlu_pro(5)},
    "davinci_mmlu_pro_stem": {"test": _mmlu_pro(2), "validation": _mmlu_pro(5)},
    "agieval": {"test": _agieval(3)},
    "agieval/agieval_math": {"test": [{"query": f"Q: {n}+1?\nA:", "answer": str(n + 1)} for n in range(2)]},
    "agieval/agieval_gaokao_mathcloze": {"test": [{"query": "Q: 1+1?\nA:", "answer": "2"}]},
    "hellaswag": {
        "validation": [
            {"activity_label": "Baking", "ctx_a": "A man opens the oven.", "ctx_b": f"he ({n})", "label": str(n % 4),
             "endings": ["takes out bread.", "swims away [title] far.", "paints it.", "is a song."]}
            for n in range(3)
        ]
    },
    "triviaqa": {
        split: [
            {"question": f"What colour has grass ({n})", "answer": {"aliases": ["green", "Green"], "value": "green"}}
            for n in range(7)
        ]
        for split in ("train", "validation")
    },
    "race": {"test": _race()},
    "winogrande": {
        "validation": [
            {"sentence": f"The cup ({n}) fits in the box, as the _ is small.", "option1": "cup", "option2": "box",
             "answer": "1"}
            for n in range(3)
        ]
    },
    "openbookqa": {"test": _openbook(3), "train": _openbook(6)},
    "piqa": {
        "validation": [
            {"goal": f"Open jar {n}", "sol1": "turn the lid", "sol2": "sing to it", "label": n % 2} for n in range(3)
        ]
    },
    "humaneval": {"test": _code(2)},
    "humaneval_plus": {"test": _code(2)},
    "mbpp": {
        "test": [
            {"task_id": n, "text": f"Write a function that adds {n}.", "code": f"def add(x):\n    return x + {n}",
             "test_list": [f"assert add({k}) == {k + n}" for k in range(3)]}
            for n in range(2)
        ]
    },
    "gsm8k": {"test": _sums("question", "answer", 3), "train": _sums("question", "answer", 9)},
    "gsm_plus": {"test": _sums("question", "solution", 7, answer="2")},
    "minerva_math": {
        "test": [{"problem": f"What is ${n}+1$?", "solution": f"It is $\\boxed{{{n + 1}}}$."} for n in range(2)]
    },
    "gpqa_main_n_shot": {"train": _gpqa(8)},
    "davinci_supergpqa": {
        "train": [
            {"question": f"Which letter has place {n + 1}?", "options": list("abcdefgh"), "answer": "abcdefgh"[n],
             "answer_letter": "ABCDEFGH"[n]}
            for n in range(8)
        ]
    },
}  # fmt: skip


def write_rows(folder: Path) -> Path:
    """All of them as ``<folder>/<task>/<split>.jsonl``."""
    for task, splits in ROWS.items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / task / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder
