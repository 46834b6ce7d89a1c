"""Logging, shared registries, the death of the parent."""

from __future__ import annotations

import logging
import multiprocessing.util
import os
import signal
import sys

import pytest

import billiard
from billiard import util


@pytest.fixture
def quiet(monkeypatch):
    """The logger as it is before anybody asked for it."""
    logger = logging.getLogger("multiprocessing")
    monkeypatch.setattr(util, "_logger", None)
    monkeypatch.setattr(util, "_log_to_stderr", False)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    yield logger
    logger.setLevel(level)


SHARED = """
    Finalize ForkAwareLocal ForkAwareThreadLock get_temp_dir is_exiting register_after_fork
    _run_after_forkers _run_finalizers _exit_function _afterfork_registry _afterfork_counter
    _finalizer_registry _finalizer_counter
"""


def test_what_is_not_needed_is_not_imported(program):
    """Every child that is started afresh pays for what this module imports."""
    done = program(
        """
        import billiard, sys
        late = ("logging", "subprocess", "multiprocessing.util")
        for name in late:
            sys.modules.pop(name, None)
        from billiard import util
        util.info("unheard")
        print([name for name in late if name in sys.modules])
        util._args_from_interpreter_flags()
        print("subprocess" in sys.modules)
        print(util.Finalize is sys.modules["multiprocessing.util"].Finalize)
        util.get_logger()
        print("logging" in sys.modules)
        """
    )
    assert (done.stdout, done.stderr) == ("[]\nTrue\nTrue\nTrue\n", "")


def test_a_name_that_nobody_has_is_missing():
    with pytest.raises(AttributeError, match=r"'billiard\.util' has no attribute 'close_all'"):
        util.close_all  # noqa: B018


@pytest.mark.parametrize("name", SHARED.split())
def test_registries_are_the_standard_librarys(name):
    assert getattr(util, name) is getattr(multiprocessing.util, name)


@pytest.mark.usefixtures("quiet")
def test_nothing_is_logged_until_somebody_asks(caplog):
    for log in (util.sub_debug, util.debug, util.info, util.sub_warning, util.warning, util.error):
        assert log("unheard") is None
    assert caplog.records == []


def test_every_level_reaches_the_logger_with_the_callers_place(quiet):
    logger = billiard.get_logger()
    assert logger is quiet
    assert not logger.propagate
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    logger.setLevel(1)
    for log, name in [
        (util.sub_debug, "SUBDEBUG"),
        (util.debug, "DEBUG"),
        (util.info, "INFO"),
        (util.sub_warning, "SUBWARNING"),
        (util.warning, "WARNING"),
        (util.error, "ERROR"),
    ]:
        assert log("%s-%s", 1, 2) is None
        assert (records[-1].levelname, records[-1].getMessage()) == (name, "1-2")
        assert records[-1].funcName == "test_every_level_reaches_the_logger_with_the_callers_place"


def test_logging_to_stderr_twice_prints_once(quiet, capsys):
    assert not util._log_to_stderr
    assert billiard.log_to_stderr("INFO") is quiet
    assert util._log_to_stderr
    assert billiard.log_to_stderr(logging.WARNING) is quiet
    assert quiet.level == logging.WARNING
    billiard.log_to_stderr()
    assert quiet.level == logging.WARNING
    util.warning("once")
    assert capsys.readouterr().err == "[WARNING/MainProcess] once\n"


@pytest.mark.usefixtures("quiet")
def test_a_replaced_stderr_is_followed(capsys, monkeypatch):
    billiard.log_to_stderr("INFO")
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    billiard.log_to_stderr()
    util.info("there")
    assert capsys.readouterr().out == "[INFO/MainProcess] there\n"


def test_a_users_own_handler_does_not_count_as_ours(quiet, capsys):
    quiet.addHandler(logging.NullHandler())
    billiard.log_to_stderr("INFO")
    util.info("heard")
    assert capsys.readouterr().err == "[INFO/MainProcess] heard\n"


def test_a_forgotten_logger_is_silent_until_asked_for_again(quiet, monkeypatch, capsys):
    billiard.log_to_stderr("INFO")
    monkeypatch.setattr(util, "_logger", None)
    util.info("unheard")
    assert billiard.get_logger() is quiet
    util.info("heard")
    assert capsys.readouterr().err == "[INFO/MainProcess] heard\n"


def test_without_a_handler_warnings_and_errors_are_printed(program):
    done = program(
        """
        import billiard
        from billiard import util
        util.error("unheard")
        billiard.get_logger()
        for log in (util.info, util.sub_warning, util.warning, util.error):
            log(log.__name__)
        """
    )
    assert (done.stdout, done.stderr) == ("", "warning\nerror\n")


def test_finalizers_at_exit_can_still_log(program, tmp_path):
    """A file that is written anew is not opened again once `logging` has shut down."""
    done = program(
        """
        import multiprocessing.util  # before `logging`, whose shutdown would then come first
        import sys
        from billiard import util
        util.Finalize(None, util.info, ("the last word",), exitpriority=0)
        import logging
        logger = util.get_logger()
        logger.setLevel("INFO")
        logger.addHandler(logging.FileHandler(sys.argv[1], mode="w"))
        """,
        str(tmp_path / "log"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "log").read_text() == "the last word\n"


def test_a_child_says_when_it_begins_and_how_it_ends(program):
    done = program(
        """
        import billiard, sys
        billiard.log_to_stderr("INFO")
        child = billiard.Process(target=sys.exit, args=(3,), name="clerk")
        child.start()
        child.join()
        print(child.pid)
        """
    )
    pid = done.stdout.strip()
    assert done.stderr.splitlines() == [
        f"[INFO/clerk] child process {pid} calling self.run()",
        f"[INFO/clerk] process {pid} exiting with exitcode 3",
    ]


ENVIRONMENT = """
import logging, sys
from billiard import util
logger = logging.getLogger("multiprocessing")
if "handled" in sys.argv:
    logger.addHandler(logging.NullHandler())
sys.stderr = None
util._setup_logging_from_environment()
mark = getattr(logger, "_rudimentary_setup", False)
print(util._logger is logger, logger.level, len(logger.handlers), mark)
util.debug("detail")
util.info("news")
"""
STANDARD = "[INFO/MainProcess] news\n"


@pytest.mark.parametrize(
    ("variables", "handled", "state", "printed"),
    [
        ({}, False, "False 0 0 False", ""),
        ({"LEVEL": ""}, False, "False 0 0 False", ""),
        ({"FORMAT": "%(message)s"}, False, "False 0 0 False", ""),
        ({"LEVEL": "20"}, False, "True 20 1 True", STANDARD),
        ({"LEVEL": "20", "FILE": "", "FORMAT": ""}, False, "True 20 1 True", STANDARD),
        ({"LEVEL": "10", "FORMAT": "%(message)s"}, False, "True 10 1 True", "detail\nnews\n"),
        ({"LEVEL": "0"}, False, "True 0 1 True", ""),
        ({"LEVEL": "10"}, True, "True 10 1 False", ""),
    ],
)
def test_a_fresh_child_logs_as_the_environment_says(program, variables, handled, state, printed):
    done = program(
        ENVIRONMENT, *["handled"] * handled, **{f"_MP_FORK_LOG{key}_": it for key, it in variables.items()}
    )
    assert (done.stdout, done.stderr) == (f"{state}\n", printed)


def test_a_fresh_child_logs_to_the_file_that_the_environment_names(program, tmp_path):
    variables = {"_MP_FORK_LOGLEVEL_": "20", "_MP_FORK_LOGFILE_": str(tmp_path / "log")}
    for _ in range(2):
        done = program(ENVIRONMENT, **variables)
        assert (done.stdout, done.stderr) == ("True 20 1 True\n", "")
    assert (tmp_path / "log").read_text() == 2 * STANDARD


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {"_MP_FORK_LOGLEVEL_": "DEBUG"},
            "ValueError: _MP_FORK_LOGLEVEL_ must be a whole number, not 'DEBUG'",
        ),
        ({"_MP_FORK_LOGLEVEL_": "10", "_MP_FORK_LOGFILE_": "/no/such/log"}, "FileNotFoundError"),
    ],
)
def test_what_the_environment_says_is_not_ignored_when_it_is_wrong(program, variables, complaint):
    done = program("from billiard import util; util._setup_logging_from_environment()", **variables)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(complaint)


def test_the_death_signal_is_set_read_and_cleared(program):
    done = program(
        """
        import signal
        from billiard.util import get_pdeathsig, set_pdeathsig
        print(get_pdeathsig())
        for number in (9, signal.SIGTERM, 0):
            set_pdeathsig(number)
            print(get_pdeathsig())
        """
    )
    assert (done.stdout, done.stderr) == ("0\n9\n15\n0\n", "")


@pytest.mark.parametrize("wrong", [1000, -1, "SIGTERM", None, 9.0, True, 2**31 - 1])
def test_what_is_no_signal_is_refused(wrong):
    before = util.get_pdeathsig()
    with pytest.raises(OSError):  # noqa: PT011
        util.set_pdeathsig(wrong)
    assert util.get_pdeathsig() == before


def test_elsewhere_there_is_no_death_signal(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for use in (lambda: util.set_pdeathsig(9), util.get_pdeathsig):
        with pytest.raises(OSError, match="only supported on Linux"):
            use()


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_death_of_the_parent_is_noticed_before_and_after_the_call(program, when):
    done = program(
        """
        import billiard, os, signal, sys, time
        from billiard.util import set_pdeathsig
        when = sys.argv[1]
        def grandchild(reader, writer):
            parent = billiard.parent_process()
            # Its own end, when its parent is killed, is not what is to be seen here.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"r")
            if when == "before":
                parent.join()
            signal.signal(signal.SIGUSR2, lambda *_: (os.write(writer, b"noticed"), os._exit(0)))
            set_pdeathsig(signal.SIGUSR2)
            os.write(writer, b"r")
            time.sleep(20)
            os.write(writer, b"missed")
        def child(reader, writer):
            billiard.Process(target=grandchild, args=(reader, writer)).start()
            time.sleep(1000)
        reader, writer = os.pipe()
        middle = billiard.Process(target=child, args=(reader, writer))
        middle.start()
        os.close(writer)
        os.read(reader, 1)
        if when == "after":
            os.read(reader, 1)
        middle.kill()
        print(os.read(reader, 10).decode())
        """,
        when,
    )
    assert (done.stdout, done.stderr) == ("noticed\n", "")


def test_retrying_is_left_to_the_interpreter():
    assert util._eintr_retry(os.getpid)() == os.getpid()
    assert util._args_from_interpreter_flags() is not None


HOOKS = """
import multiprocessing, sys
import billiard
from billiard import util
class Sign:
    def __init__(self, text):
        self.text = text
    def show(self):
        print(self.text, flush=True)
signs = [Sign(text) for text in sys.argv[1:]]
for sign in signs:
    util.register_after_fork(sign, Sign.show)
del signs[1], sign
for package in (billiard, multiprocessing.get_context("fork")):
    child = package.Process(target=print, args=(package.__class__.__name__,))
    child.start()
    child.join()
"""


def test_hooks_run_in_children_of_either_package_while_their_object_lives(program):
    done = program(HOOKS, "one", "two", "three")
    assert done.stderr == ""
    assert done.stdout.split() == ["one", "three", "module", "one", "three", "ForkContext"]


def test_finalizers_run_once_by_priority_and_not_in_children():
    seen = []
    for priority in (-5, 10, 0):
        util.Finalize(None, seen.append, (priority,), exitpriority=priority)
    child = billiard.Process(target=lambda: os._exit(len(seen)))
    child.start()
    child.join()
    assert child.exitcode == 0
    util._run_finalizers(-5)
    util._run_finalizers(-5)
    assert [one for one in seen] == [10, 0, -5]
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
