"""Residency: what is large, where it is, and how it comes to be there.

Weights of components, LoRAs, experts of a mixture and activation caches lie on disk, in the memory
of the host or in that of a device. These are **tiers**, and whoever needs one of them there has it
brought one tier up:

    item     what is brought, as a load made of pieces                     `item.py`
    loader   one for each process: it brings items, piece by piece         `loader.py`
    tier     the items that are in a place, and those on their way there   `tier.py`
    budget   who has which of a tier's bytes                               `budget.py`
    rates    how fast bytes come, as measured, and as allowed              `rates.py`

What is brought first, and what leaves for it, is decided in `shared/policy/residency/`.

    loader = Loader(bytes_per_second=0)
    host = Tier("the LoRAs", 2**30, loader, nbytes=lambda adapter: adapter.nbytes)
    future = host.bring(Item("style", size, lambda: read(path)), within=0.0, likelihood=1.0)
    adapter = await asyncio.wrap_future(future)

    def read(path: Path) -> Pieces[Adapter]:
        for number, layer in enumerate(layers):
            found[layer] = ...        # some megabytes
            yield found[layer].nbytes # here others may come first, and the load may be given up
        return Adapter(found)

**One link.** All loads of a process share its loader's thread, so what is wanted sooner really
comes sooner. A load says `within` how many seconds it is wanted, and is due then, but not before it
can be there. After each piece (`PIECE_BYTES`) the loader asks for the order again: a model of
minutes is due in minutes, and whatever is wanted meanwhile, be it an expert within milliseconds,
waits for a piece of it and no longer. Once the model is late, it gets ahead as it grows late in
proportion to what it takes, so it comes at last. What cannot be divided (a library's function) is
`undivided`: it runs on a thread of its own, and the loader goes on with others meanwhile.

**Budgets.** A tier has a bound, and says what it does with what is larger. Items in use are pinned
(`bring(..., pinned=True)`, `unpin`). A mixture of experts has a tier for each layer, with its share
of the memory, and one loader for all. `expect` tells how likely an item is wanted again: by that,
times what it takes to bring it, per byte, it stays or leaves; where all are alike that is least
recently used.

**Failures.** A load that fails raises in the futures of those who wait for it, and nowhere else;
nothing of it stays. It may be wanted again at once, or later: that is for its user to say.
Cancelling the futures of all who wait gives a load up, at its next `yield`.
"""
