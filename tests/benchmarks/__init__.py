"""The project's benchmark, `make bench`: what the hub costs, and what others cost on the same machine.

    options ──> __main__ ──> fanout, wires, publish, scaling, log, ai, micro: what is measured, as sections
                  │            ├──> systems ──> served         a server of any kind, on a core of its own
                  │            └──> child ────> driver         a measurement in a process of its own
                  │                               ├──> crowd       N connections on one epoll, every delivery counted
                  │                               ├──> pollers     the same for clients that ask again after each answer
                  │                               ├──> wire        how a stream is opened and read
                  │                               └──> publisher   POSTs, one at a time, pipelined or by the clock
                  └────────> machine, report, plots            tables, figures, and what they were measured on

Every server listens on loopback, every run is bounded in connections and time, and what a run has started, and nothing
else, is ended with it. `docs/performance/index.md` says how to read the figures.
"""
