"""The data that comes with crywolf: seeds, near-miss twins, validation suites, templates, lexicons, and a demo's files.

Everything is written for this project and lies beside this file as YAML; the functions give contract frames or
validated plain data. Each is read when it is first asked for.
"""

from .attacks import malicious_seeds, near_miss_twins
from .breadth import breadth, embedded_training
from .lexicons import Lexicons, lexicons
from .seeds import benign_prompts_path, benign_seeds, fps_path
from .suites import edge_case_suite, programming_suite
from .templates import Template, templates

__all__ = [
    "Lexicons",
    "Template",
    "benign_prompts_path",
    "benign_seeds",
    "breadth",
    "edge_case_suite",
    "embedded_training",
    "fps_path",
    "lexicons",
    "malicious_seeds",
    "near_miss_twins",
    "programming_suite",
    "templates",
]
