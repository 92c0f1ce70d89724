"""The sandbox of rewards that run model-written code: no network, no project files, no processes but its own, no way out.

    warden       the worker process, in its own namespaces: a root file system with Python and the system's libraries bound read-only, no
                 network, no view of outside processes. It runs no model-written code
    cell         a new process for each response, in its own process and mount namespaces, with an empty /tmp, as another user, without
                 capabilities. All processes started in it end with it, and nothing of it remains for the next response
    limits       an empty environment, at most NUM_PROCESSES processes, files of at most FILE_BYTES

The sandbox is entered after the rewards are loaded: their own files are trusted, the responses are not. Started by root, a cell runs as a
user id that no other process has; started by another user, in a user namespace of its own. Linux only, where the system allows namespaces
(root, or unprivileged user namespaces); elsewhere `enter` raises, and the reward is refused unless the recipe says `unconfined`.

Left out: system-call filters (seccomp), a limit on processor time (a call has its time limit). A reward that runs a response in its own
process, by exec or eval, can be manipulated by it; one that runs it in another process (rewards/code.py) cannot.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 32, 4096, 16384, 1 << 18, 2
DIE_WITH_PARENT, DUMPABLE, NO_NEW_PRIVILEGES, CAPABILITIES = 1, 4, 38, 0x20080522
INSIDE, FIRST_USER = 65534, 1_000_000  # the user in a namespace of its own; and as root, with the warden's number added, outside of one
NUM_PROCESSES, FILE_BYTES, TMP_BYTES, REPLY_BYTES = 64, 64 * 2**20, 64 * 2**20, 2**20
COVERED = ("/mnt", "/media", "/srv", "/opt", "/tmp")
SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def enter(file_descriptor: int, trainer: int) -> int:
    """Returns, in a child process that is the warden, the user that cells are to run as. This process waits for the warden's end, and ends
    as it did, or with the process `trainer`. `file_descriptor`, the pipe, goes with the warden alone.

    Raises:
        OSError: the system does not allow it, and why.
    """
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no namespaces")
    user, group = os.getuid(), os.getgid()
    whole = user == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]  # else root of a container alone
    _call("unshare", NEW_MOUNTS | NEW_IPC | NEW_PIDS | NEW_NET | (0 if whole else NEW_USER))
    if not whole:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{INSIDE} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{INSIDE} {group} 1")
    _call("mount", None, b"/", None, RECURSIVE | PRIVATE, None)
    root, number = _furnished(), os.getpid()
    child = os.fork()
    if child:
        os.close(file_descriptor)
        _wait(child, trainer)
        _end_as(child)
    _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    _move_in(root)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ |= {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    return FIRST_USER + number if whole else INSIDE


def in_cell(user: int, work: Callable[[], bytes]) -> bytes | str:
    """What `work` returns in a cell; in words how the cell ended where it returned nothing.

    Two forks: of this process, which stays in its own namespaces, a keeper enters new ones, and its child is their first process.
    """
    read, write = os.pipe()
    keeper = os.fork()
    if not keeper:
        with suppress(BaseException):  # whatever it is, this copy of the warden must end here
            os.close(read)
            _keep(user, work, write)
        os._exit(1)
    os.close(write)
    with open(read, "rb") as pipe:
        reply = pipe.read(REPLY_BYTES)
    _, status = os.waitpid(keeper, 0)
    if reply:
        return reply
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {os.waitstatus_to_exitcode(status)}"


def _keep(user: int, work: Callable[[], bytes], write: int) -> None:
    _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    _call("unshare", NEW_PIDS | NEW_MOUNTS | NEW_IPC)
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", NO_SUID | NO_DEVICES, f"size={TMP_BYTES},mode=1777".encode())
    child = os.fork()
    if child:
        os.close(write)
        _end_as(child)
    os.setsid()  # a signal to its process group would reach the warden, and who waits for it outside
    os.chdir("/tmp")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if user != INSIDE:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", DUMPABLE, 0, 0, 0, 0)  # what it starts has its user, and must not look into it
    _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)  # last: a change of user forgets it
    resource.setrlimit(resource.RLIMIT_NPROC, (NUM_PROCESSES, NUM_PROCESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    os.closerange(3, write)
    os.closerange(write + 1, 4096)
    with open(write, "wb") as pipe:
        pipe.write(work())
    os._exit(0)


def _furnished() -> str:
    """The new root: what Python needs, read-only, and a /tmp. It lies over a folder that nothing of that is in, for this process alone."""
    python = [os.path.realpath(os.path.join(sys.base_prefix, name)) for name in ("bin", "lib")]
    packages = [os.path.realpath(entry) for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix)) and os.path.isdir(entry)]
    places = _outermost([*SYSTEM, *python, *packages])
    for place in places:
        if Path(place).is_relative_to("/tmp"):  # a cell has a /tmp of its own over it
            raise OSError(f"Python or its packages lie in {place}, and there is another /tmp inside; install them elsewhere")
    free = [each for each in COVERED if os.path.isdir(each) and not any(place.startswith(each + "/") for place in places)]
    if not free:
        raise OSError(f"none of {', '.join(COVERED)} is a folder that Python does not lie in")
    root = free[0]
    _call("mount", b"tmpfs", root.encode(), b"tmpfs", NO_SUID | NO_DEVICES, f"size={TMP_BYTES},mode=755".encode())
    for place in places:
        _bind(place, root + place)
    for name in ("tmp", "old"):
        os.mkdir(f"{root}/{name}")
    return root


def _bind(place: str, there: str) -> None:
    if os.path.isdir(place):
        os.makedirs(there, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        Path(there).touch()
    try:
        _call("mount", place.encode(), there.encode(), None, BIND, None)
    except OSError:  # in a user namespace a folder goes with what is mounted in it, or not at all
        _call("mount", place.encode(), there.encode(), None, BIND | RECURSIVE, None)
    device = 0 if place.startswith("/dev/") else NO_DEVICES
    _call("mount", None, there.encode(), None, BIND | REMOUNT | READ_ONLY | NO_SUID | device, None)


def _outermost(places: Sequence[str]) -> list[str]:
    """Those that are there, once each, and none inside of another."""
    there = sorted({place for place in places if os.path.exists(place)})
    return [place for place in there if not any(place.startswith(other + "/") for other in there)]


def _move_in(root: str) -> None:
    """The new root becomes the root, and the old one is gone."""
    os.chdir(root)
    _call("pivot_root", b".", b"old")
    os.chdir("/")
    _call("umount2", b"/old", DETACH)
    os.rmdir("/old")


def _wait(child: int, trainer: int) -> None:
    """Until the child has ended, which is left to be waited for; ends where the trainer is gone. (A thread cannot be had any more.)"""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        signal.sigtimedwait([signal.SIGCHLD], 1.0)
        if os.getppid() != trainer:
            os._exit(1)


def _end_as(child: int) -> None:
    """Waits for the child and ends in the same way, so that whoever waits for this process sees what became of it."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        with suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) & 255)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises OSError that names it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
