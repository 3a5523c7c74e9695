"""`python -m shared.host.forking.server SOCKET`: forks processes that need what it has imported.

It imports what is asked for when it is asked for it first, has one thread, and opens nothing. A
process that it forks is not its child but that of whoever asked, who has to adopt orphans
(`adoption.py`): the end of one has no effect on the other.
"""

import gc
import os
import socket
import sys
import traceback
from typing import Final, NoReturn

import msgspec

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from shared.host.forking.become import become
from shared.host.forking.messages import LONGEST, SERVER, ForkReply, ForkRequest
from shared.host.forking.preloading import open_files, preload, unfit
from shared.host.forking.title import set_title

UNADOPTED: Final = os.EX_TEMPFAIL
"""Exit status of a process whose fork server ended before it began."""
_PID_BYTES: Final = 8

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ForkRequest).decode


class ForkServer:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._known = open_files()
        self._preloaded: dict[str, str] = {}
        """Module -> why it cannot be forked, empty if it can be."""

    def __repr__(self) -> str:
        return f"<ForkServer {self._preloaded}>"

    def serve(self) -> NoReturn:
        """Until nobody is there who could ask. Forked processes leave it too, by ending."""
        while True:
            message, files, _, _ = socket.recv_fds(self._channel, LONGEST, 1)
            if not message:
                os._exit(0)
            request, [output] = _decode(message), files
            refusal = self._prepare(request.command[0], output)
            if refusal:
                self._reply(ForkReply(refusal=refusal))
            elif self._fork():
                self._channel.detach()
                become(request, output)
            os.close(output)

    def _prepare(self, module: str, output: int) -> str:
        """Why `module` cannot be forked; empty if it can be."""
        if module not in self._preloaded:
            try:
                preload(module)
                refusal = unfit({*self._known, output})
            except Exception as error:
                traceback.print_exc()
                refusal = f"it cannot be imported: {error!r}"
            if refusal:
                print(f"{module} is not forked: {refusal}", file=sys.stderr, flush=True)
            self._preloaded[module] = refusal
            gc.freeze()  # no collector writes to what is shared
        return self._preloaded[module]

    def _fork(self) -> bool:
        """True in the new process, once it is a child of whoever asked, who was told its pid."""
        go, begin = os.pipe()
        told, tell = os.pipe()
        try:
            between = os.fork()
        except OSError as error:
            self._reply(ForkReply(refusal=f"fork: {error}"))
            _close(go, begin, told, tell)
            return False
        if between == 0 and _is_last(tell):
            _close(begin, told, tell)
            if not os.read(go, 1):
                os._exit(UNADOPTED)
            os.setpgid(0, 0)  # until now it went with its server
            return True
        os.close(tell)
        pid = int.from_bytes(os.read(told, _PID_BYTES))
        os.waitpid(between, 0)  # now whoever asked has the process
        self._reply(ForkReply(pid) if pid else ForkReply(refusal="fork: it failed"))
        if pid:
            os.write(begin, b"1")
        _close(go, begin, told)
        return False

    def _reply(self, reply: ForkReply) -> None:
        self._channel.send(_encode(reply))


def _is_last(tell: int) -> bool:
    """Forks again. True in the process that is to stay; the one between tells its pid, and ends, so
    that the other one is adopted."""
    pid = -1
    try:
        pid = os.fork()
        if pid:
            os.write(tell, pid.to_bytes(_PID_BYTES))
    finally:
        if pid:
            os._exit(0)
    return True


def _close(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


def main(channel: int) -> NoReturn:
    set_title("fork_server", (sys.executable, "-m", SERVER))
    with socket.socket(fileno=channel) as listening:
        ForkServer(listening).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
