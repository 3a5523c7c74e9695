"""A forked process becomes what a new one would be."""

import importlib
import os
import runpy
import signal
import sys
from typing import NoReturn

from shared.host.die_with_parent import die_with
from shared.host.forking.messages import ForkRequest, unpacked
from shared.host.forking.preloading import open_files
from shared.host.forking.title import set_title


def become(request: ForkRequest, output: int) -> NoReturn:
    """Run what `request` asks for, as `python -m` does, and end as it ends. `output`: where its
    standard output and error go; every other file is closed."""
    die_with(request.parent, signal.SIGKILL)
    for number in (1, 2):
        os.dup2(output, number)
    for number in sorted(open_files()):
        if number > 2:
            os.close(number)
    os.environb.clear()
    os.environb.update(unpacked(request.environment))
    module, *arguments = request.command
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    set_title(module.rpartition(".")[2], sys.orig_argv)
    _diverge()
    _customise()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _diverge() -> None:
    """Draw other random numbers than siblings do. (`random` sees to itself.)"""
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()


def _customise() -> None:
    """What Python runs at the start of each process (see `site`) has only been run for the fork
    server."""
    for name in ("sitecustomize", "usercustomize"):
        if name in sys.modules:
            importlib.reload(sys.modules[name])
