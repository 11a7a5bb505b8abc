"""The load tool, `hub load`: thousands of subscribers on a running hub, every delivery counted and timed.

    options ──> run ──> subscribers ──> stream          N connections; from bytes to what they say
                 │           └────────> figures <┐      what came, in which order, how fast (latency)
                 ├────> publisher ───────────────┤      an event is due when it is due, whatever the hub does
                 └────> display, report <────────┘      while it runs, and in the end

It is a client: it talks HTTP to the hub and shares only the SSE format and the topic grammar with it. It finds lost,
repeated and disordered deliveries by sequence number, per subscriber, through lost connections too.
"""
