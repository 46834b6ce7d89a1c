"""Distils the description of the original's surface into what `test_signatures.py` compares.

    python tests/api/distil.py PATH_TO_API_JSON > tests/api/surface.json

The description has every name that a module of the original happens to have, in both published versions.
What is kept is what programs may rely on: the names that a module declares public, and those private or
imported ones that others are known to use. Where the versions differ, the later one counts. What only
exists on other platforms is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = """
    billiard _ext process context popen_fork popen_spawn_posix popen_forkserver spawn forkserver reduction
    resource_sharer semaphore_tracker util common compat connection dummy dummy.connection einfo exceptions
    pool queues synchronize heap sharedctypes managers
"""

#: Names that are not declared public, or are another module's, and that programs use all the same: Celery
#: and kombu, monitoring agents that wrap workers, the original's own tests.
NEEDED = {
    "managers": """
        AcquirerProxy Array ArrayProxy AutoProxy BarrierProxy BaseListProxy ConditionProxy DictProxy
        EventProxy IteratorProxy ListProxy Namespace NamespaceProxy PoolProxy ProcessLocalSet
        RebuildProxy RemoteError Server State Value ValueProxy all_methods convert_to_error dispatch
        public_methods rebuild_as_list reduce_array
    """,
    "billiard": """
        SUBDEBUG SUBWARNING VERSION __author__ __author_email__ __contact__ __docformat__ __homepage__
        __maintainer__ __version__ ensure_multiprocessing
    """,
    "process": """
        AuthenticationString ORIGINAL_DIR _children _cleanup _dangling _exitcode_to_name _set_current_process
        BaseProcess._Popen BaseProcess._authkey BaseProcess._bootstrap BaseProcess._children
        BaseProcess._counter BaseProcess._daemonic BaseProcess._is_alive BaseProcess._tempdir
    """,
    "context": """
        AuthenticationError BufferTooShort ProcessError SoftTimeLimitExceeded TimeLimitExceeded TimeoutError
        WorkerLostError BaseContext DefaultContext ForkContext ForkProcess ForkServerContext
        ForkServerProcess Process SpawnContext SpawnProcess _concrete_contexts _default_context
        _force_start_method assert_spawning get_spawning_popen set_spawning_popen
        BaseContext._check_available ForkServerContext._check_available DefaultContext.__all__
        ForkContext._name SpawnContext._name ForkServerContext._name
        Process._Popen ForkProcess._Popen SpawnProcess._Popen ForkServerProcess._Popen
        Process._start_method ForkProcess._start_method SpawnProcess._start_method
        ForkServerProcess._start_method
    """,
    "spawn": "is_forking old_main_modules prepare spawn_main",
    "forkserver": "MAXFDS_TO_SEND main",
    "queues": "Empty Full Queue JoinableQueue SimpleQueue _SimpleQueue",
    "reduction": "ACKNOWLEDGE HAVE_SEND_HANDLE",
    "semaphore_tracker": "_semaphore_tracker getfd main",
    "util": """
        DEBUG DEFAULT_LOGGING_FORMAT ERROR INFO NOTSET PR_GET_PDEATHSIG PR_SET_PDEATHSIG WARNING
        _afterfork_counter _afterfork_registry _args_from_interpreter_flags _eintr_retry _exit_function
        _finalizer_counter _finalizer_registry _log_to_stderr _logger _run_after_forkers _run_finalizers
        error get_pdeathsig set_pdeathsig warning
    """,
    "common": "pickle_load _should_have_exited _shutdown_cleanup",
    "compat": "closerange fsdecode fsencode",
    "connection": """
        AuthenticationError BUFSIZE BufferTooShort CHALLENGE CONNECTION_TIMEOUT Connection ConnectionWrapper
        FAILURE ForkingPickler MESSAGE_LENGTH SocketClient SocketListener WELCOME XmlClient XmlListener
        _ConnectionBase address_type answer_challenge arbitrary_address default_family deliver_challenge
        detach families rebuild_connection reduce_connection send_offset setblocking
        Connection._recv_bytes _ConnectionBase._handle
    """,
    "dummy": "Array DummyProcess Namespace Value dict list shutdown",
    "dummy.connection": "Connection families",
    "einfo": """
        DEFAULT_MAX_FRAMES ExceptionWithTraceback RemoteTraceback _Code _Frame _Object _Truncated rebuild_exc
    """,
    "exceptions": "AuthenticationError BufferTooShort ProcessError TimeoutError",
    "pool": """
        Lock
        ApplyResult._ack ApplyResult._cancel ApplyResult._scheduled_for ApplyResult._set
        ApplyResult._set_terminated ApplyResult._worker_lost ApplyResult._write_to
        IMapIterator._ack IMapIterator._set IMapIterator._set_length IMapIterator._worker_lost
        IMapUnorderedIterator._set MapResult._ack MapResult._set
        Pool._avail_index Pool._create_worker_process Pool._help_stuff_finish Pool._help_stuff_finish_args
        Pool._join_exited_workers Pool._maintain_pool Pool._process_by_pid Pool._process_cleanup_queues
        Pool._process_register_queues Pool._repopulate_pool Pool._set_result_sentinel Pool._setup_queues
        Pool._stop_task_handler Pool._terminate_pool Pool._wrap_exception
        Worker._do_exit Worker._ensure_messages_consumed Worker._make_child_methods Worker._make_recv_method
    """,
    "heap": "Arena Heap BufferWrapper._heap Heap._alignment Heap._roundup rebuild_arena reduce_arena",
    "sharedctypes": """
        Synchronized SynchronizedArray SynchronizedBase SynchronizedString class_cache make_property
        prop_cache rebuild_ctype reduce_ctype typecode_to_type
    """,
    "synchronize": """
        Barrier RECURSIVE_MUTEX SEMAPHORE SEM_VALUE_MAX SemLock SemLock._make_name _semname sem_unlink
        Barrier._count Barrier._state
    """,
}

#: Public only because the module does not say what is: what it imported, and what it needed on the way.
LEFT_OVER = {
    "compat": "E_PSUTIL_MISSING E_RESOURCE_MISSING F_GETFL F_SETFL O_NONBLOCK RUSAGE_SELF",
    "pool": "PY3",
}

#: Changes while the program runs, or tells about the machine: that it exists is all that can be compared.
VARIABLE = {
    "process": "_children _exitcode_to_name ORIGINAL_DIR",
    "context": "_concrete_contexts",
    "spawn": "old_main_modules",
    "util": "_finalizer_registry _log_to_stderr _logger",
    "common": "SIGMAP _should_have_exited",
    "sharedctypes": "prop_cache typecode_to_type",
}

#: Where users find what is defined elsewhere, in a place that is not the same in every Python.
USUAL_NAMES = {
    "_pickle.load": "pickle.load",
    "_thread.allocate_lock": "threading.Lock",
    "os._fscodec.<locals>.fsdecode": "os.fsdecode",
    "os._fscodec.<locals>.fsencode": "os.fsencode",
    "posix.closerange": "os.closerange",
}

#: Special methods whose presence is a promise; the others every object has.
SPECIAL = {"__enter__", "__exit__", "__iter__", "__next__", "__call__", "__reduce__"}

#: A default that is no literal, such as a function; one more level of brackets occurs inside.
UNPRINTABLE = re.compile(r"<[^<>]*(?:<[^<>]*>[^<>]*)*>")


def full_name(module: str) -> str:
    return module if module == "billiard" else f"billiard.{module}"


def clean(signature: str | None) -> str | None:
    """Put ``...`` in the place of a default that cannot be compared."""
    return None if signature is None else UNPRINTABLE.sub("...", signature)


def is_kept(module: str, name: str, entry: dict[str, Any], declares: bool) -> bool:
    if entry.get("static") or entry["kind"] == "module":
        return False
    if name in NEEDED.get(module, "").split():
        return True
    if name in LEFT_OVER.get(module, "").split():
        return False
    return bool(entry.get("public")) and (declares or "is" not in entry)


def members(module: str, owner: str, entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    needed = NEEDED.get(module, "").split()
    for name, member in entry.get("members", {}).items():
        if name.startswith("_") and name not in SPECIAL and f"{owner}.{name}" not in needed:
            continue
        kept = {"kind": member["kind"]}
        # What takes anything says nothing about a special method, whose arguments the language fixes.
        if member.get("signature") and name not in SPECIAL:
            kept["signature"] = clean(member["signature"])
        if "value" in member:
            kept["value"] = member["value"]
        if member.get("settable"):
            kept["settable"] = True
        yield name, kept


def distilled(module: str, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    if "alias_of" in entry:
        return {"is": f"{full_name(module)}.{entry['alias_of']}"}
    if "is" in entry and entry["kind"] != "bound_method":
        return {"is": USUAL_NAMES.get(entry["is"], entry["is"])}
    kept: dict[str, Any] = {"kind": entry["kind"]}
    if "bases" in entry:
        kept["bases"] = [base for base in entry["bases"] if base != "builtins.object"]
    if entry.get("signature"):
        kept["signature"] = clean(entry["signature"])
    if "value" in entry and name not in VARIABLE.get(module, "").split():
        kept["value"] = entry["value"]
    if found := dict(members(module, name, entry)):
        kept["members"] = found
    return kept


def distil(api: dict[str, Any]) -> dict[str, Any]:
    surface = {}
    for module in MODULES.split():
        described = api["modules"][full_name(module)]
        names = {
            name: distilled(module, name, entry)
            for name, entry in described["names"].items()
            if is_kept(module, name, entry, "all" in described)
        }
        if missing := {name for name in NEEDED.get(module, "").split() if "." not in name} - set(names):
            raise ValueError(f"{module}: not described: {sorted(missing)}")
        surface[full_name(module)] = {"all": described.get("all", []), "names": names}
    return surface


def text(surface: dict[str, Any]) -> str:
    """Lay out as JSON with a line for each name, so that a change shows as that line."""
    lines = []
    for module, described in surface.items():
        exported = " ".join(described["all"])
        entries = [f"   {json.dumps(name)}: {json.dumps(it)}" for name, it in described["names"].items()]
        lines.append(
            f' {json.dumps(module)}: {{\n  "all": {json.dumps(exported)},\n  "names": {{\n'
            + ",\n".join(entries)
            + "\n  }\n }"
        )
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(text(distil(json.loads(Path(sys.argv[1]).read_text()))))
