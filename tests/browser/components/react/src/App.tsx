import { type HubOptions, HubProvider, useNotifications, usePresence, useTokenStream } from "hub-client/react";
import { useState } from "react";

interface Order {
  number: number;
}

/** Where the hub is, and who asks, are in the URL of the page; a server knows neither. */
export function App({ hub }: { hub: HubOptions }) {
  const [shown, setShown] = useState(true);
  const [topic, setTopic] = useState("orders");
  const [asked, setAsked] = useState(0);
  const [user, setUser] = useState("ann");
  return (
    <HubProvider {...hub} user={user}>
      <button onClick={() => setShown(!shown)}>show</button>
      <button onClick={() => setTopic("news")}>news</button>
      <button onClick={() => setAsked(asked + 1)}>people</button>
      <button onClick={() => setUser("bob")}>bob</button>
      <Chat />
      {shown && (
        <>
          <Orders topic={topic} />
          <Total />
          <Forbidden />
          {asked > 0 && <People />}
        </>
      )}
    </HubProvider>
  );
}

function Orders({ topic }: { topic: string }) {
  const { notifications, state, clear } = useNotifications<Order>(topic, { type: "order.created", keep: 3 });
  return (
    <section>
      <p data-testid="state">{state}</p>
      <p data-testid="orders">{notifications.map(({ data }) => data.number).join(" ")}</p>
      <button onClick={clear}>clear</button>
    </section>
  );
}

/** Counts by itself: nothing is kept, so only its own state renders it anew. */
function Total() {
  const [total, setTotal] = useState(0);
  const [gaps, setGaps] = useState(0);
  useNotifications<Order>("orders", {
    keep: 0,
    onNotification: ({ data }) => setTotal((before) => before + data.number),
    onGap: () => setGaps((before) => before + 1),
  });
  return (
    <p>
      <span data-testid="total">{total}</span> <span data-testid="gaps">{gaps}</span>
    </p>
  );
}

function Forbidden() {
  const { refused } = useNotifications("secret");
  return <p data-testid="refused">{refused}</p>;
}

function People() {
  const presence = usePresence("orders");
  return <p data-testid="people">{presence?.users?.map(({ id }) => id).sort().join(" ") ?? "nobody knows"}</p>;
}

function Chat() {
  const { text, phase, sessionId, ask, stop } = useTokenStream({ name: "chat" });
  return (
    <section>
      <button onClick={() => void ask("What is a hub?")}>ask</button>
      <button onClick={() => void stop()}>stop</button>
      <p data-testid="phase">{phase}</p>
      <p data-testid="session">{sessionId}</p>
      <p data-testid="answer">{text}</p>
    </section>
  );
}
