"""The limit on open files, raised to what a process may need: each connection is an open file."""

import resource


def raise_file_limit(needed: int) -> int:
    """Raise this process's soft limit on open files to `needed`, or as far as the hard one allows:
    many systems start processes with 1,024. Returns how many of `needed` there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough(soft, hard, needed)
    if wanted != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return needed if wanted == resource.RLIM_INFINITY else min(wanted, needed)


def enough(soft: int, hard: int, needed: int) -> int:
    """The soft limit to set. Pure."""
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    return needed if hard == resource.RLIM_INFINITY else min(needed, hard)
