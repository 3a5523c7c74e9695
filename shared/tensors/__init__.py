"""Tensors between processes: handles, arenas, and the ways bytes travel.

handle.py       what travels in messages
transport.py    put and get: the interface, shared memory, and a fake
torch_io.py     the same for torch tensors
tcp.py          between hosts
arena.py        one process's slots;  arena_file.py, layout.py, extents.py: what they lie in
reader.py       reading the arenas of others
owners.py       names, directories, and who is alive
janitor.py      removing what the dead left
releases.py     freeing what ended jobs held
"""
