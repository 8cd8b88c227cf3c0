"""The code of notebooks that are exported to no module, for tests."""
import ast
import json
from pathlib import Path
from types import SimpleNamespace

NODES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def is_definition(node):
    """Imports, functions, classes, and constants in capitals."""
    constant = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
    return constant or isinstance(node, NODES)


def definitions(name):
    """What a notebook imports and defines; nothing else of it runs."""
    path = Path(__file__).parent.parent / "nbs" / name
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    kept = [node for node in ast.parse(source).body if is_definition(node)]
    found = {}
    exec(compile(ast.Module(kept, []), name, "exec"), found)
    return SimpleNamespace(**found)
