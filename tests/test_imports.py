"""The house rules that a reader relies on: imports flow one way, sockets open in three places, functions stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpt"
# The order of the chapters. A file imports only from rooms above its own and from files above it in its room.
ROOMS = {
    "text": ["tokenizer", "formats", "entries", "prompts", "dataset"],
    "model": ["gpt2", "generate"],
    "speed": ["packing", "chunked_loss", "decoding"],
    "hardware": ["locks", "precision", "processes", "memory"],
    "weights": ["sources", "download", "tf_checkpoint", "checkpoint"],
    "tuning": ["freezing", "lora", "adapter", "prompt_tuning", "turns", "pairs", "dpo"],
    "training": ["loss", "train", "run"],
    "evaluation": ["metrics", "constraints", "chat_client", "judge", "plots", "report"],
    "curation": """
        cards templates templates_zh material rule_tasks rule_text
        refusals replies teacher replay self_instruct answers code_answers maths_answers evol_instruct documents augment
        filters toxicity personal_data dedup balance pipeline data_card
    """.split(),
    "studies": [
        "figures",
        "recipe",
        "self_check",
        "pretrain",
        "preference",
        "agreement",
        "experiments",
        "cleaning",
        "page",
        "comparison",
        "judge_report",
        "tracking",
        "dry_run",
        "sweep",
        "contestants",
        "decoders",
        "chores",
        "speedrun",
        "arena",
        "machine",
        "benchmark",
        "speed_report",
        "growth",
    ],
    "serving": ["gguf", "batching", "scheduler", "protocol", "rating", "server"],
}
SIDE_ROOMS = {
    "speed",
    "tuning",
    "hardware",
    "curation",
    "studies",
    "serving",
}  # side roads that join the way of an example: not needed to follow it
ORDER = [f"gpt.{room}.{file}" for room, files in ROOMS.items() for file in files]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names.add(node.module)
    return names


def test_every_file_has_its_place() -> None:
    assert {module_name(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_flow_one_way(path: Path) -> None:
    above = ORDER[: ORDER.index(module_name(path))]
    ours = {name for name in imported(path) if name.split(".")[0] == "gpt"}
    assert ours <= set(above), f"{module_name(path)} imports {ours - set(above)} from below"


def test_sockets_open_only_where_the_network_belongs() -> None:
    network = {"requests", "socket", "urllib.request", "http.client", "httpx", "aiohttp"}
    assert {module_name(path) for path in FILES if imported(path) & network} == {
        "gpt.weights.download", "gpt.evaluation.chat_client", "gpt.serving.server"
    }  # fmt: skip


def test_nothing_is_unpickled() -> None:
    for path in [*FILES, *(PACKAGE.parent / "scripts").glob("*.py")]:
        assert not imported(path) & {"pickle", "dill", "joblib", "cloudpickle"}, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{path.name}:{node.lineno}"


def test_the_library_does_not_print_but_for_show_mask() -> None:
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name != "show_mask":
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_file_says_what_it_is_and_every_signature_has_types(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not untyped, f"{path.name}:{node.lineno} {node.name}: {untyped}"
            assert node.returns is not None, f"{path.name}:{node.lineno} {node.name}"


def test_the_trunk_can_be_read_in_an_evening() -> None:
    trunk = [path for path in FILES if path.parent.name not in SIDE_ROOMS]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in trunk) <= 4200


@pytest.mark.long
def test_a_model_is_there_without_waiting_for_what_it_does_not_need() -> None:
    """NLTK (behind ROUGE-L) and PyTorch's compiler take longer to import than everything else together."""
    slow = ["nltk", "torch._dynamo", "matplotlib", "transformers"]
    seen = "print(*(name for name in sys.argv[1:] if name in sys.modules))"
    for command, expected in (("import gpt; gpt.load_model('gpt2-tiny')", ""), ("import nltk", "nltk")):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {command}; {seen}", *slow], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected, command
