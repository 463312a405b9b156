"""The house rules: who imports whom, what the pure library may not do, no pickle, every public name documented."""

import ast
import logging
import pathlib
import re
import sys

import griffe
import pytest

ROOT = pathlib.Path(__file__).parent.parent
STANDARD = {"jax", "jaxlib", "jaxtyping", "numpy", "scipy"}
BESIDE = {f"genjax.{path.stem}" for path in (ROOT / "genjax").glob("*.py")} - {"genjax.__init__"}

# What a part of the project may import, besides the standard library, itself, and the modules of genjax/ itself.
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
    "train/checkpoint": STANDARD
    | {"flax", "orbax", "genjax", "train.run.files", "train.run.documents", "train.run.terminal"},
    "train/run": STANDARD
    | {
        "flax",
        "optax",
        "tyro",
        "tqdm",
        "matplotlib",
        "PIL",
        "safetensors",
        "tensorboardX",
        "genjax",
        "train.checkpoint",
    },
    "train": STANDARD | {"flax", "optax", "tyro", "PIL", "safetensors", "genjax"},
    "examples": STANDARD | {"flax", "optax", "genjax", "train"},
    "benchmarks": None,
}
ONLY = {"orbax": "train/checkpoint/arrays.py", "matplotlib": "train/run/plots.py"}

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
    door = relative == "genjax/__init__.py"  # names every package, and is no package's business
    own = set() if here == "genjax" and not door else {here.replace("/", ".")}
    for line, name in imports(ast.parse(text)):
        top = name.split(".")[0]
        if top in ONLY and relative != ONLY[top]:
            yield f"{relative}:{line}: imports {name}; only {ONLY[top]} may"
        if MAY_IMPORT[here] is None or top in sys.stdlib_module_names:
            continue
        allowed = MAY_IMPORT[here] | own | BESIDE
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


NO_BEGINNING = set(
    "of what where whether who whose whom which how as at with that if when to from in by on for "
    "those these it they one ones such so theirs its".split()
)
"""First words that no imperative and no noun phrase begins with."""


class Caught(logging.Handler):
    """The warnings of griffe, which reads docstrings as the makers of documentation do."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def unclear(path, text):
    """Docstrings, and entries of arguments and attributes in them, that break the rules of their form."""
    relative, caught = path.relative_to(ROOT), Caught()
    logger = logging.getLogger("griffe")
    logger.addHandler(caught)
    propagate, logger.propagate = logger.propagate, False
    name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")

    def bad(phrase):
        return (re.match(r"[A-Za-z']+", phrase.strip()) or [""])[0].lower() in NO_BEGINNING

    def visit(node):
        if node.is_alias:
            return
        if node.docstring is not None:
            where, doc = f"{relative.as_posix()}:{node.docstring.lineno}: {node.path}", node.docstring.value
            caught.lines.clear()
            if bad(doc):
                yield f"{where}: begins with {doc.split()[0]!r}, not with an imperative or a noun"
            if re.search(r"^\s*Fields:", doc, re.MULTILINE):
                yield f"{where}: Fields:, not Attributes:"
            for section in node.docstring.parse("google"):
                entries = section.value if section.kind.value.endswith(("parameters", "attributes")) else []
                for entry in entries:
                    if bad(entry.description):
                        yield f"{where}: {entry.name}: begins with {entry.description.split()[0]!r}, not with a noun"
                    if not entry.name.strip("*").isidentifier():
                        yield f"{where}: {entry.name}: an entry is of one name"
            yield from (f"{where}: griffe: {line}" for line in caught.lines)
        for member in getattr(node, "members", {}).values():
            yield from visit(member)

    try:
        yield from visit(griffe.visit(name, filepath=path, code=text))
    finally:
        logger.removeHandler(caught)
        logger.propagate = propagate


RULES = [
    (wrong_imports, ("genjax", "train", "examples", "benchmarks")),
    (impurities, ("genjax",)),
    (pickles, ("genjax", "train", "examples", "benchmarks")),
    (undocumented, ("genjax", "train", "examples", "benchmarks")),
    (unclear, ("genjax", "train", "examples", "benchmarks")),
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
        (wrong_imports, "genjax/statistics.py", "from genjax import metrics"),
        (wrong_imports, "genjax/theory/x.py", "import genjax"),
        (wrong_imports, "train/run/loop.py", "import matplotlib.pyplot"),
        (wrong_imports, "train/run/x.py", "def f():\n    from train import ddpm"),
        (wrong_imports, "train/checkpoint/x.py", "from train.run import config"),
        (wrong_imports, "train/ddpm.py", "from benchmarks import speed"),
        (wrong_imports, "examples/x.py", "from benchmarks import speed"),
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
        (unclear, "train/x.py", '"""What a run left."""'),
        (unclear, "genjax/x.py", 'def _f():\n    """Whether it is so."""'),
        (unclear, "train/x.py", 'class A:\n    lr: float = 1.0\n    """Of the optimizer."""'),
        (unclear, "genjax/x.py", 'class A:\n    """A thing.\n\n    Fields:\n      x: number.\n    """\n    x: int'),
        (unclear, "genjax/x.py", 'class A:\n    """A thing.\n\n    Attributes:\n      x: of it.\n    """\n    x: int'),
        (unclear, "genjax/x.py", 'def f(x: int):\n    """Do.\n\n    Args:\n      x: how many.\n    """'),
        (unclear, "genjax/x.py", 'def f(x: int, y: int):\n    """Do.\n\n    Args:\n      x, y: numbers.\n    """'),
        (unclear, "genjax/x.py", 'def f(x: int):\n    """Do.\n\n    Args:\n      y: number.\n    """'),
    ],
)
def test_the_rule_would_notice(rule, file, text):
    assert list(rule(ROOT / file, text))


def test_no_file_is_too_long_to_read():
    long = {
        p.relative_to(ROOT).as_posix(): n
        for p in sources("genjax", "train", "examples")
        if (n := len(p.read_text().splitlines())) > 300
    }
    assert not long
