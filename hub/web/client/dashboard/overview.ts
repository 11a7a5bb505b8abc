/** How the hub is: numbers, charts, and what needs a look. */

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { $, bytes, clock, count, duration, make, rate, short, span, Table, tell } from "./dom.js";
import { type Figures, type History, open, type Sample, type Worker } from "./figures.js";

const KINDS = ["subscription", "handler", "generation"];
const COLOURS = ["--c1", "--c3", "--c4", "--c5", "--c2"];
const NAMES: Record<string, string> = {
  subscription: "Subscriptions",
  handler: "Handler streams",
  generation: "Answers",
  websocket: "WebSockets",
  socketio: "Socket.IO",
  poll: "Polls",
};
export const nameOf = (kind: string): string => NAMES[kind] ?? kind;
export const oneOf = (kind: string): string => nameOf(kind).replace(/s$/, "");

interface Failure {
  logger: string;
  level: string;
  text: string;
  times: number;
  first: string;
  last: string;
}

/** Counters that are 0 on a good day, with what they mean. */
const TROUBLE: [keyof Figures, string, string][] = [
  ["slow_disconnects", "Slow readers cut", "too much waited; they resume"],
  ["dropped", "Frames dropped", "by policy, and announced"],
  ["peer_timeouts", "Peers lost", "they took nothing for too long"],
  ["refused", "Streams refused", "a limit, draining, or no log"],
  ["unauthorized", "Not logged in", "requests refused with 401"],
  ["forbidden", "Not allowed", "requests refused with 403"],
  ["limited", "Over the rate", "too many requests or publishes"],
  ["unobserved_failures", "Publishes lost", "failed, and nobody waited for them"],
];

export class Overview {
  readonly #history: History;
  #charts: { chart: Chart; lines: (history: History) => (number | null)[][] }[] = [];
  readonly #workers: Table<[string, Worker]>;
  readonly #failures: Table<Failure>;
  #known = -1;
  #kinds = "";

  constructor(history: History) {
    this.#history = history;
    this.#workers = new Table<[string, Worker]>(
      $("workers"),
      [
        { title: "Worker", cell: ([name]) => name },
        { title: "Streams", number: true, cell: ([, { streams }]) => count(streams) },
        { title: "Delivered/s", number: true, cell: ([name]) => this.#of(name, ({ delivered }) => delivered) },
        { title: "CPU", number: true, cell: ([name]) => this.#cpu(name) },
        { title: "Memory", number: true, cell: ([, own]) => bytes(own.memory_bytes) },
        { title: "Loop lag", number: true, cell: ([, { lag }]) => (lag === null ? "–" : duration(lag)) },
        { title: "Up", number: true, cell: ([, { uptime }]) => span(uptime) },
      ],
      ([name]) => name,
    );
    this.#failures = new Table<Failure>(
      $("failures"),
      [
        { title: "Last", cell: ({ last }) => clock(last) },
        { title: "Times", number: true, cell: ({ times }) => count(times) },
        {
          title: "Part",
          cell: ({ logger, level }) => [make("span", { class: `level ${level}` }, level), ` ${logger}`],
        },
        { title: "What", cell: ({ text }) => text },
      ],
      ({ logger, text }) => `${logger} ${text}`,
    );
  }

  #of(name: string, value: (worker: Worker) => number): string {
    const growth = this.#history.growth(({ workers }) => workers[name] && value(workers[name]));
    return growth === undefined ? "–" : rate(growth);
  }

  #cpu(name: string): string {
    const growth = this.#history.growth(({ workers }) => workers[name]?.cpu_seconds, undefined, 3);
    return growth === undefined ? "–" : percent(growth);
  }

  restyle(): void {
    for (const { chart } of this.#charts) chart.restyle();
  }

  show(): void {
    const sample = this.#history.last;
    if (!sample) return;
    this.#makeCharts(sample);
    this.#tiles(sample);
    const times = this.#history.times();
    for (const { chart, lines } of this.#charts) chart.show(times, lines(this.#history));
    this.#trouble(sample);
    this.#log(sample);
    this.#busiest(sample);
    this.#answers(sample);
    const workers = Object.entries(sample.workers).sort(([a], [b]) => a.localeCompare(b));
    $("workers-panel").hidden = workers.length < 2 && sample.missing === 0;
    tell($("workers-missing"), sample.missing ? `${count(sample.missing)} did not answer in time.` : "");
    if (workers.length > 1) this.#workers.show(workers);
    if (sample.failures !== this.#known) void this.#readFailures(sample.failures);
  }

  #makeCharts(sample: Sample): void {
    const kinds = [...KINDS, ...Object.keys(sample.total.streams).filter((kind) => !KINDS.includes(kind))];
    if (this.#kinds === kinds.join()) return;
    this.#kinds = kinds.join();
    const ms = (value: number) => duration(value);
    this.#charts = [
      {
        chart: new Chart({
          id: "streams",
          title: "Open streams",
          stacked: true,
          least: 5,
          format: short,
          lines: kinds.map((kind, place) => ({ name: nameOf(kind), colour: COLOURS[place % COLOURS.length]! })),
        }),
        lines: (history) => kinds.map((kind) => history.values(({ total }) => total.streams[kind])),
      },
      {
        chart: new Chart({
          id: "delivered",
          title: "Deliveries per second",
          least: 5,
          format: rate,
          lines: [
            { name: "live", colour: "--c2", fill: true },
            { name: "replayed", colour: "--c4", dash: true },
          ],
        }),
        lines: (history) => [
          history.rates(({ total }) => total.delivered),
          history.rates(({ total }) => total.replayed),
        ],
      },
      {
        chart: new Chart({
          id: "published",
          title: "Publishes per second",
          least: 2,
          format: rate,
          lines: [{ name: "confirmed", colour: "--c1", fill: true }],
        }),
        lines: (history) => [history.rates(({ total }) => total.published)],
      },
      {
        chart: new Chart({
          id: "latency",
          title: "Publish to written",
          least: 0.002,
          format: ms,
          lines: [
            { name: "p99", colour: "--c3", fill: true },
            { name: "p50", colour: "--c1" },
            { name: "loop lag", colour: "--c5", dash: true },
          ],
        }),
        lines: (history) => [
          history.values(({ written }) => written?.p99),
          history.values(({ written }) => written?.p50),
          history.values(({ lag }) => lag),
        ],
      },
      {
        chart: new Chart({
          id: "cpu",
          title: "Processor",
          least: 0.1,
          format: percent,
          lines: [{ name: "of one core", colour: "--c4", fill: true }],
        }),
        lines: (history) => [history.rates(({ total }) => total.cpu_seconds)],
      },
      {
        chart: new Chart({
          id: "memory",
          title: "Memory",
          least: 1e7,
          format: bytes,
          lines: [
            { name: "processes", colour: "--c5", fill: true },
            { name: "log", colour: "--c3", dash: true },
          ],
        }),
        lines: (history) => [
          history.values(({ total }) => total.memory_bytes),
          history.values(({ log }) => log.bounds?.bytes),
        ],
      },
    ];
    $("charts").replaceChildren(...this.#charts.map(({ chart }) => chart.element));
  }

  #tiles(sample: Sample): void {
    const { total } = sample;
    const history = this.#history;
    const grown = (value: (sample: Sample) => number) => history.growth(value, undefined, 3);
    const rated = (value: number | undefined) => (value === undefined ? "–" : rate(value));
    const kinds = Object.entries(total.streams).filter(([, number]) => number > 0);
    const limit = total.streams_limit ? `room for ${short(total.streams_limit)}` : "none open";
    tile("streams", count(open(sample)), kinds.map(([kind, n]) => several(n, kind)).join(", ") || limit);
    tile("published", rated(grown((each) => each.total.published)), `${count(total.published)} since the start`);
    tile("delivered", rated(grown((each) => each.total.delivered)), `${count(total.delivered)} since the start`);
    const latency = sample.written;
    tile(
      "latency",
      latency ? duration(latency.p99) : "–",
      latency ? `half within ${duration(latency.p50)}` : "no publish lately",
    );
    const cpu = grown((each) => each.total.cpu_seconds);
    tile(
      "cpu",
      cpu === undefined ? "–" : percent(cpu),
      sample.lag === null ? "of one core" : `loop lag up to ${duration(sample.lag)}`,
    );
    tile("memory", bytes(total.memory_bytes), `up ${span(total.uptime)}`);
    tell(
      $("draining"),
      sample.draining ? "This hub is draining: its streams end, and their clients go elsewhere." : "",
    );
  }

  #trouble(sample: Sample): void {
    const minute = Math.min(this.#history.samples.length - 1, 60);
    let calm = true;
    $("trouble").replaceChildren(
      ...TROUBLE.map(([name, title, meaning]) => {
        const value = sample.total[name] as number;
        const now = this.#history.growth((each) => each.total[name] as number, undefined, minute);
        const fresh = now !== undefined && now > 0;
        if (value) calm = false;
        const said = make("dd", { class: fresh ? "fresh" : value ? "some" : "none" }, short(value));
        return make("div", {}, make("dt", {}, title, make("small", {}, meaning)), said);
      }),
    );
    tell($("trouble-said"), calm ? "Nothing since the start." : "Since the start; marked: in the last minute.");
  }

  #log(sample: Sample): void {
    const { home, bounds } = sample.log;
    const grown = this.#history.growth(({ log }) => log.bounds?.bytes, undefined, 30);
    const state = $("log-state");
    state.dataset.state = bounds ? "open" : "failed";
    tell(state, bounds ? "answers" : "does not answer");
    tell($("log-home"), home);
    tell($("log-count"), bounds ? count(bounds.count) : "–");
    tell($("log-bytes"), bounds ? bytes(bounds.bytes) : "–");
    tell($("log-growth"), grown === undefined ? "steady" : grown > 0 ? `${bytes(grown * 60)} a minute` : "steady");
    tell($("log-oldest"), bounds?.oldest ?? "–");
    tell($("log-newest"), bounds?.newest ?? "–");
    tell($("online"), count(sample.online));
  }

  #busiest(sample: Sample): void {
    const most = sample.busiest[0]?.[1] ?? 1;
    $("busiest-empty").hidden = sample.busiest.length > 0;
    $("busiest").replaceChildren(
      ...sample.busiest.map(([topic, perSecond]) => {
        const meter = make("meter", { min: "0", max: String(most), value: String(perSecond), "aria-hidden": "true" });
        const link = make("a", { href: `#live?topic=${encodeURIComponent(topic)}`, title: topic }, topic);
        return make("li", {}, link, meter, make("b", {}, `${rate(perSecond)}/s`));
      }),
    );
  }

  #answers({ total }: Sample): void {
    $("answers-panel").hidden = !(total.generations_begun || total.generations);
    tell($("answers-now"), count(total.generations));
    tell($("answers-viewers"), count(total.viewers));
    tell($("answers-done"), count(total.generations_done));
    tell($("answers-failed"), count(total.generations_failed));
    tell($("answers-cancelled"), count(total.generations_cancelled));
  }

  async #readFailures(known: number): Promise<void> {
    this.#known = known;
    try {
      const { failures } = await get<{ failures: Failure[] }>("dashboard/failures");
      this.#failures.show(failures.slice(0, 50));
      $("failures-empty").hidden = failures.length > 0;
      $("failures").hidden = failures.length === 0;
    } catch {
      this.#known = -1; // the next sample asks again
    }
  }
}

/** So many of a kind, in one line. */
const several = (n: number, kind: string): string =>
  `${short(n)} ${(n === 1 ? oneOf(kind) : nameOf(kind)).replace(/^\w(?=[a-z])/, (first) => first.toLowerCase())}`.replaceAll(
    " ",
    "\u00a0",
  );

const percent = (value: number): string => (value === 0 ? "0" : `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`);

function tile(id: string, value: string, detail: string): void {
  tell($(`tile-${id}`), value);
  tell($(`tile-${id}-detail`), detail);
}
