"""The house rules: who imports whom, what the pure library may not do, no pickle, every public name documented."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
STANDARD = {"jax", "jaxlib", "jaxtyping", "numpy", "scipy"}

# What a part of the project may import, besides the standard library, itself, and what stands in genjax/ itself.
MAY_IMPORT = {
    "genjax/theory": STANDARD | {"optax"},
    "genjax/diffusion": STANDARD | {"genjax.theory"},
    "genjax/nn": STANDARD | {"flax"},
    "genjax/data": STANDARD | {"PIL", "array_record", "tensorflow_datasets", "tensorflow"},
    "genjax/envs": STANDARD | {"genjax.theory"},
    "genjax/models": STANDARD | {"flax", "optax", "genjax.theory", "genjax.diffusion", "genjax.nn", "genjax.envs"},
    "genjax/metrics": STANDARD | {"genjax.theory"},
    "genjax/training": STANDARD | {"optax", "genjax.theory"},
    "genjax": STANDARD | {"optax"},
    "train": STANDARD
    | {"flax", "optax", "tyro", "tqdm", "orbax", "matplotlib", "PIL", "safetensors", "tensorboardX", "genjax"},
    "benchmarks": None,
}
ONLY = {"orbax": "train/checkpoint/store.py", "matplotlib": "train/run/plots.py"}

EFFECTS = {"print", "open", "input", "exit", "breakpoint", "__import__"}
CLOCKS = {"time", "datetime", "logging", "subprocess", "threading", "multiprocessing", "signal", "matplotlib", "random"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "torch.load", "yaml.load"}


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def part(path):
    """The part of the project a file belongs to, as named in MAY_IMPORT."""
    relative = path.relative_to(ROOT).as_posix()
    return max((name for name in MAY_IMPORT if relative.startswith(name + "/")), key=len)


def imports(tree):
    """(line, full name of the module or of the name in it) of every import, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def dotted(node):
    """``a.b.c`` of an expression, or an empty string."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def wrong_imports(path, text):
    """Imports against the direction of the architecture."""
    here, relative = part(path), path.relative_to(ROOT).as_posix()
    own = here.replace("/", ".")
    for line, name in imports(ast.parse(text)):
        top = name.split(".")[0]
        if top in ONLY and relative != ONLY[top]:
            yield f"{relative}:{line}: imports {name}; only {ONLY[top]} may"
        if MAY_IMPORT[here] is None or top in sys.stdlib_module_names:
            continue
        beside = {f"genjax.{name}" for name in ("types", "random", "checks", "statistics", "lapack", "lazy")}
        allowed = MAY_IMPORT[here] | {own} | beside
        if not any(f"{name}.".startswith(f"{module}.") for module in allowed):
            yield f"{relative}:{line}: {here} may not import {name}"


def impurities(path, text):
    """Effects, clocks, global state and stateful randomness in the pure library."""
    relative, tree = path.relative_to(ROOT).as_posix(), ast.parse(text)
    reads_disk = relative.startswith("genjax/data/")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and dotted(node.func) in EFFECTS
            and not (reads_disk and dotted(node.func) == "open")
        ):
            yield f"{relative}:{node.lineno}: calls {dotted(node.func)}"
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield f"{relative}:{node.lineno}: global state"
        if (
            isinstance(node, ast.Attribute)
            and dotted(node).startswith(("np.random", "numpy.random"))
            and not reads_disk
        ):
            yield f"{relative}:{node.lineno}: numpy's random state"
        if isinstance(node, ast.Attribute) and dotted(node) in (
            "jax.debug.print",
            "jax.pure_callback",
            "jax.config.update",
        ):
            yield f"{relative}:{node.lineno}: {dotted(node)}"
    for line, name in imports(tree):
        if name.split(".")[0] in CLOCKS and not reads_disk:
            yield f"{relative}:{line}: imports {name}"
        if name.startswith(("train", "benchmarks")):
            yield f"{relative}:{line}: imports {name}"


def pickles(path, text):
    """Whatever can run code that hides in data."""
    relative, tree = path.relative_to(ROOT).as_posix(), ast.parse(text)
    for line, name in imports(tree):
        if name.split(".")[0] in PICKLES:
            yield f"{relative}:{line}: imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS:
                yield f"{relative}:{node.lineno}: calls {dotted(node.func)}"
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "shell") and getattr(keyword.value, "value", True) is not False:
                    yield f"{relative}:{node.lineno}: {keyword.arg}"


def undocumented(path, text):
    """Public names without a word on what they are."""
    relative = path.relative_to(ROOT).as_posix()

    def visit(body, prefix):
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield f"{relative}:{node.lineno}: {prefix}{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{node.name}.")

    tree = ast.parse(text)
    if not ast.get_docstring(tree):
        yield f"{relative}: no docstring"
    yield from visit(tree.body, "")


RULES = [
    (wrong_imports, ("genjax", "train", "benchmarks")),
    (impurities, ("genjax",)),
    (pickles, ("genjax", "train", "benchmarks")),
    (undocumented, ("genjax", "train", "benchmarks")),
]


@pytest.mark.parametrize(("rule", "folders"), RULES)
def test_the_rule_holds(rule, folders):
    offences = [line for path in sources(*folders) for line in rule(path, path.read_text(encoding="utf-8"))]
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        (wrong_imports, "genjax/theory/x.py", "from genjax.models import ddpm"),
        (wrong_imports, "genjax/training/x.py", "from genjax import models"),
        (wrong_imports, "genjax/models/x.py", "def f():\n    import orbax.checkpoint"),
        (wrong_imports, "train/loop.py", "import matplotlib.pyplot"),
        (impurities, "genjax/models/x.py", "print(1)"),
        (impurities, "genjax/nn/x.py", "import time"),
        (impurities, "genjax/nn/x.py", "x = np.random.rand()"),
        (impurities, "genjax/nn/x.py", "def f():\n    global x"),
        (impurities, "genjax/nn/x.py", "from train import loop"),
        (pickles, "train/x.py", "import pickle"),
        (pickles, "train/x.py", "np.load(f, allow_pickle=True)"),
        (pickles, "train/x.py", "subprocess.run(c, shell=flag)"),
        (pickles, "train/x.py", "eval('1')"),
        (undocumented, "genjax/nn/x.py", '"""x"""\nclass A:\n    """a"""\n    def f(self): pass'),
    ],
)
def test_the_rule_would_notice(rule, file, text):
    assert list(rule(ROOT / file, text))


def test_no_file_is_too_long_to_read():
    long = {
        p.relative_to(ROOT).as_posix(): n
        for p in sources("genjax", "train")
        if (n := len(p.read_text().splitlines())) > 300
    }
    assert not long
