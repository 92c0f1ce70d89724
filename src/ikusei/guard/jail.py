"""The jail of rewards that run what a model has written: no network, none of the project's files, no process but its own, another user.

    mounts       an empty root with Python and the system's libraries bound into it, read-only, and a /tmp that is gone with it
    network      a namespace of its own, without a single device that is up
    processes    a namespace of its own, whose end is the end of all that was started in it
    user         root becomes user 65534 for good; anyone else is alone in a user namespace, without capabilities
    and          an empty environment, at most NUM_PROCESSES processes, files of at most FILE_BYTES

It is entered after the rewards are loaded: their own files are trusted, what they are called on is not. Linux only, where the system allows
namespaces (root, or unprivileged user namespaces); elsewhere `enter` raises, and the reward is refused unless the recipe says `unconfined`.

Left out: filters of system calls (seccomp), a limit on processor time (a call has its time limit).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 32, 4096, 16384, 1 << 18, 2
DIE_WITH_PARENT, NO_NEW_PRIVILEGES, CAPABILITIES = 1, 38, 0x20080522
NOBODY = 65534
NUM_PROCESSES, FILE_BYTES, TMP_BYTES = 128, 64 * 2**20, 64 * 2**20
COVERED = ("/mnt", "/media", "/srv", "/opt", "/tmp")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def enter(file_descriptor: int) -> None:
    """Returns in a child process that is in the jail; this process waits for its end and ends as it did. `file_descriptor`, the pipe,
    goes with the child alone.

    Raises:
        OSError: the system does not allow it; nothing has changed but namespaces that are left with the process.
    """
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no namespaces")
    user, group = os.getuid(), os.getgid()
    flags = NEW_MOUNTS | NEW_IPC | NEW_PIDS | NEW_NET | (NEW_USER if user else 0)
    _call("unshare", flags)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    _call("mount", None, b"/", None, RECURSIVE | PRIVATE, None)
    root = _furnished()
    child = os.fork()
    if child:
        os.close(file_descriptor)
        _end_as(child)
    _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    _move_in(root)
    if not user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)())
    resource.setrlimit(resource.RLIMIT_NPROC, (NUM_PROCESSES, NUM_PROCESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    os.environ.clear()
    os.environ |= {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}


def _furnished() -> str:
    """The new root: what Python needs, read-only, and a /tmp. It lies over a folder that nothing of that is in, for this process alone."""
    packages = [entry for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix)) and os.path.isdir(entry)]
    places = _outermost([*SYSTEM, os.path.realpath(sys.base_prefix), *map(os.path.realpath, packages)])
    root = next(each for each in COVERED if os.path.isdir(each) and not any(place.startswith(each + "/") for place in places))
    _call("mount", b"tmpfs", root.encode(), b"tmpfs", NO_SUID | NO_DEVICES, f"size={TMP_BYTES},mode=755".encode())
    for place in places:
        there = root + place
        if os.path.isdir(place):
            os.makedirs(there, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(there), exist_ok=True)
            Path(there).touch()
        _call("mount", place.encode(), there.encode(), None, BIND | RECURSIVE, None)
        device = 0 if place.startswith("/dev/") else NO_DEVICES
        _call("mount", None, there.encode(), None, BIND | REMOUNT | READ_ONLY | NO_SUID | device, None)
    for name, mode in (("tmp", 0o1777), ("old", 0o700)):
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)
    return root


def _outermost(places: Sequence[str]) -> list[str]:
    """Those that are there, once each, and none inside of another. What is a link is bound as what it leads to."""
    there = sorted({place for place in places if os.path.exists(place)})
    return [place for place in there if not any(place.startswith(other + "/") for other in there)]


def _move_in(root: str) -> None:
    """The new root becomes the root, and the old one is gone."""
    os.chdir(root)
    _call("pivot_root", b".", b"old")
    os.chdir("/")
    _call("umount2", b"/old", DETACH)
    os.rmdir("/old")
    os.chdir("/tmp")


def _end_as(child: int) -> None:
    """Waits for the child and ends in the same way, so that whoever waits for this process sees what became of it."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises OSError that names it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
