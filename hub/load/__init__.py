"""The load tool, `hub load`: thousands of subscribers on a running hub, every delivery counted and timed.

    options ──> run ──> subscribers ──> stream          N connections; the parser of what they receive
                 │           └────────> figures <┐      the counts, and the latencies
                 ├────> publisher ───────────────┤      a fixed schedule, however slow the hub is
                 └────> display, report <────────┘      output during the run, and at its end

The tool is a client: it talks HTTP to the hub and shares only the SSE format and the topic grammar with it. It finds
lost, repeated and disordered deliveries by sequence number, per subscriber, even across lost connections.
"""
