"""Choosing how processes are started: by default, by name, once, by serializer."""

from __future__ import annotations

import inspect
import pickle
import sys
import threading

import pytest

import billiard
from billiard import context, pool
from billiard._serializers import pickler_for

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture
def fresh(monkeypatch):
    """The default context as it is after import."""
    monkeypatch.setattr(context._default_context, "_actual_context", None)
    return context._default_context


def test_all_methods_are_there(fresh):
    assert fresh.get_all_start_methods() == billiard.get_all_start_methods() == list(METHODS)
    for method in METHODS:
        concrete = fresh.get_context(method)
        assert type(concrete) is type(context._concrete_contexts[method])
        assert concrete is fresh.get_context(method)
        assert concrete.get_context() is concrete.get_context(None) is concrete
        assert concrete.get_context("fork") is fresh.get_context("fork")
        assert concrete.get_start_method() == concrete.get_start_method(allow_none=True) == method
        assert concrete.get_all_start_methods() == list(METHODS)
        assert concrete.forking_is_enabled() is (method == "fork")
        concrete._check_available()
    # To look at a context is not to choose it.
    assert fresh.get_start_method(allow_none=True) is None


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_chosen_once(fresh, method):
    fresh.set_start_method(method)
    assert fresh.get_start_method() == fresh.get_start_method(allow_none=True) == method
    assert fresh.get_context() is context._concrete_contexts[method]
    for again in METHODS:
        with pytest.raises(RuntimeError, match="context has already been set"):
            fresh.set_start_method(again)
    fresh.set_start_method("fork", force=True)
    assert fresh.get_start_method() == "fork"
    fresh.set_start_method(None, force=True)
    assert fresh.get_start_method(allow_none=True) is None


def test_forcing_is_needed_for_nothing_but_a_change(fresh):
    fresh.set_start_method("spawn", force=True)
    assert fresh.get_start_method() == "spawn"
    with pytest.raises(ValueError, match="cannot find context for 'x'"):
        fresh.set_start_method("x", force=True)
    assert fresh.get_start_method() == "spawn"


@pytest.mark.parametrize(
    "use",
    [
        lambda it: it.get_start_method(),
        lambda it: it.get_context(),
        lambda it: it.forking_is_enabled(),
        lambda it: it.get_context(serializer="pickle"),
    ],
)
def test_using_the_default_context_settles_it(fresh, use):
    fresh.Process(target=int)
    assert fresh.get_start_method(allow_none=True) is None
    use(fresh)
    assert fresh.get_start_method(allow_none=True) == "fork"
    with pytest.raises(RuntimeError):
        fresh.set_start_method("spawn")


def test_starting_a_process_settles_it(fresh):
    child = billiard.Process(target=int)
    assert fresh.get_start_method(allow_none=True) is None
    child.start()
    child.join()
    child.close()
    assert fresh.get_start_method(allow_none=True) == "fork"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("force", [False, True])
def test_a_concrete_context_cannot_be_changed(method, force):
    with pytest.raises(ValueError, match="cannot set start method of concrete context"):
        billiard.get_context(method).set_start_method("fork", force=force)
    with pytest.raises(ValueError, match="concrete context"):
        billiard.get_context(method).set_start_method(force=force)


def test_forking_can_be_forbidden(fresh, recwarn):
    assert fresh.forking_is_enabled()
    fresh.forking_enable(True)
    assert fresh.get_start_method() == "fork"
    fresh.forking_enable(False)
    assert fresh.get_start_method() == "spawn"
    assert not fresh.forking_is_enabled()
    # To allow it is not to demand it.
    fresh.forking_enable(True)
    assert fresh.get_start_method() == "spawn"
    assert list(recwarn) == []


@pytest.mark.parametrize("method", METHODS)
def test_concrete_contexts_do_as_they_always_do(method):
    concrete = billiard.get_context(method)
    concrete.forking_enable(True)
    with pytest.raises(ValueError, match="concrete context"):
        concrete.forking_enable(False)


ELSEWHERE = """
import sys
real, sys.platform = sys.platform, {platform!r}
from billiard import context
sys.platform = real
import billiard
print(billiard.get_start_method(allow_none=True), billiard.get_start_method(), billiard.forking_is_enabled())
billiard.set_start_method("fork", force=True)
print(billiard.get_start_method())
"""


@pytest.mark.parametrize(("platform", "method"), [("linux", "fork"), ("darwin", "spawn")])
def test_the_default_depends_on_the_platform_at_import(program, original, platform, method):
    for run in (program, original):
        done = run(ELSEWHERE.format(platform=platform))
        assert (done.stdout, done.stderr) == (f"None {method} {method == 'fork'}\nfork\n", "")


def test_the_default_method_comes_first(program):
    done = program(
        """
        import sys
        sys.platform = "darwin"
        import billiard
        print(*billiard.get_all_start_methods())
        """
    )
    assert (done.stdout, done.stderr) == ("spawn fork forkserver\n", "")


def test_choosing_is_the_same_in_the_original(program, original):
    source = """
    import billiard
    from billiard import context
    def tell(use):
        try: print(use())
        except Exception as error: print(type(error).__name__, error)
    for name in ("fork", "spawn", "forkserver", "x", ""):
        tell(lambda: type(billiard.get_context(name)).__name__)
        tell(lambda: billiard.get_context(name).get_start_method())
        tell(lambda: billiard.get_context(name).set_start_method("fork"))
        tell(lambda: billiard.get_context(name).Process.__name__)
        tell(lambda: billiard.get_context(name).forking_is_enabled())
    for use in (
        billiard.get_all_start_methods,
        lambda: billiard.get_start_method(allow_none=True),
        lambda: billiard.set_start_method("spawn"),
        lambda: billiard.set_start_method("fork"),
        lambda: billiard.set_start_method(None),
        billiard.get_start_method,
        lambda: billiard.set_start_method(None, force=True),
        lambda: billiard.get_start_method(True),
        lambda: context._force_start_method("forkserver"),
        billiard.get_start_method,
        lambda: type(billiard.get_context()).__name__,
        lambda: context.get_spawning_popen(),
        lambda: context.set_spawning_popen(5),
        lambda: context.get_spawning_popen(),
        lambda: context.assert_spawning(1),
        lambda: context.set_spawning_popen(None),
        lambda: context.assert_spawning([]),
    ):
        tell(use)
    """
    ours, theirs = program(source), original(source)
    assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)


def test_every_option_of_a_pool_reaches_the_pool(monkeypatch):
    options = inspect.signature(pool.Pool).parameters
    given = {name: object() for name in options if name not in ("context", "kwargs")}
    positional = list(given)[:17]
    monkeypatch.setattr(pool, "Pool", lambda *args, **kwargs: (args, kwargs))
    for make, concrete in (
        (billiard.Pool, billiard.get_context()),
        (billiard.get_context("spawn").Pool, billiard.get_context("spawn")),
    ):
        args, kwargs = make(
            *(given[name] for name in positional), **{n: given[n] for n in given if n not in positional}
        )
        assert dict(zip(options, args, strict=False)) | kwargs == {**given, "context": concrete}


# --- serializers ---


@pytest.mark.parametrize("method", METHODS)
def test_a_context_may_have_a_serializer(method):
    plain = billiard.get_context(method)
    packed = plain.get_context(serializer="cloudpickle")
    assert type(packed) is type(plain)
    assert packed is not plain
    assert (plain._serializer, packed._serializer) == (None, "cloudpickle")
    # Its class of processes is a class like the other one, and may have subclasses.
    assert issubclass(packed.Process, plain.Process)
    assert packed.Process.__name__ == plain.Process.__name__
    assert packed.Process._start_method == method
    assert packed.Process()._serializer == "cloudpickle"
    assert packed.Process(serializer="pickle")._serializer == "pickle"
    assert plain.Process()._serializer is None
    assert plain.Process(serializer="cloudpickle")._serializer == "cloudpickle"
    assert type("Own", (packed.Process,), {})(name="n")._serializer == "cloudpickle"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("serializer", ["cloudpickle", "pair"])
def test_what_it_sends_need_not_be_importable(method, serializer):
    cloudpickle = pytest.importorskip("cloudpickle")
    pair = (cloudpickle.dumps, pickle.loads)
    packed = billiard.get_context(method, serializer="cloudpickle" if serializer == "cloudpickle" else pair)
    code = 42

    class Own(packed.Process):
        def run(self):
            sys.exit(self.code + 1)

    closure, own = packed.Process(target=lambda: sys.exit(code)), Own()
    own.code = code
    for child, expected in ((closure, 42), (own, 43)):
        child.start()
        child.join()
        assert child.exitcode == expected
        child.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_a_serializer_refuses_is_told_in_its_words(method):
    pytest.importorskip("cloudpickle")
    packed = billiard.get_context(method, serializer="cloudpickle")
    child = packed.Process(target=lambda: None, args=(threading.Lock(),), name="n")
    with pytest.raises(
        pickle.PicklingError,
        match=r"Process 'n'\._args\[0\] to the child: TypeError: cannot pickle '_thread.lock'",
    ):
        child.start()


@pytest.mark.parametrize(
    ("bad", "error"), [("x", ValueError), (3, TypeError), ((1, 2), TypeError), ((len,), TypeError)]
)
def test_a_bad_serializer_is_refused_at_once(bad, error):
    for use in (billiard.get_context, billiard.get_context("spawn").get_context):
        with pytest.raises(error, match="serializer must be"):
            use(serializer=bad)
    with pytest.raises(error, match="serializer must be"):
        pickler_for(bad)


def test_a_serializer_that_is_not_installed_says_how_to_get_it(program):
    done = program(
        """
        import sys
        sys.modules["cloudpickle"] = None
        import billiard
        try: billiard.get_context("spawn", serializer="cloudpickle")
        except ImportError as error: print(error, error.name)
        """
    )
    assert done.stdout == (
        'serializer="cloudpickle" needs cloudpickle: pip install "billiard[cloudpickle]" cloudpickle\n'
    )
