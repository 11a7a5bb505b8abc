/** Samples of the hub, and what follows from two of them. Pure. */

export interface Figures {
  streams: Record<string, number>;
  streams_limit: number;
  cpu_seconds: number;
  memory_bytes: number;
  topics: number;
  generations: number;
  viewers: number;
  published: number;
  delivered: number;
  replayed: number;
  dropped: number;
  slow_disconnects: number;
  peer_timeouts: number;
  connects: number;
  disconnects: number;
  refused: number;
  unauthorized: number;
  forbidden: number;
  limited: number;
  unobserved_failures: number;
  generations_begun: number;
  generations_done: number;
  generations_failed: number;
  generations_cancelled: number;
  uptime: number;
  [name: string]: unknown;
}

export interface Worker {
  streams: number;
  delivered: number;
  cpu_seconds: number;
  memory_bytes: number;
  uptime: number;
  /** Seconds by which the event loop was late lately, at most. */
  lag: number | null;
}

export interface Sample {
  at: number;
  workers: Record<string, Worker>;
  total: Figures;
  missing: number;
  log: {
    home: string;
    bounds: { epoch: string; oldest: string; newest: string; count: number; bytes: number } | null;
  };
  online: number;
  draining: boolean;
  busiest: [string, number][];
  others: number;
  failures: number;
  /** Seconds in which publishes were written lately; null: there were none. */
  written: { p50: number; p99: number } | null;
  lag: number | null;
}

/** Seconds that are shown. */
export const WINDOW = 300;

export const open = (sample: Sample): number =>
  Object.values(sample.total.streams).reduce((sum, each) => sum + each, 0);

/** The samples of the last five minutes, and their differences. */
export class History {
  readonly samples: Sample[] = [];

  get last(): Sample | undefined {
    return this.samples.at(-1);
  }

  add(samples: Sample[], all: boolean): void {
    if (all) this.samples.length = 0;
    this.samples.push(...samples);
    const oldest = (this.last?.at ?? 0) - WINDOW - 5;
    while (this.samples.length && this.samples[0]!.at < oldest) this.samples.shift();
  }

  /** What `value` grew by per second before sample `place`; undefined: there is nothing to compare it with. */
  growth(value: (sample: Sample) => number | undefined, place = this.samples.length - 1, over = 1): number | undefined {
    const now = this.samples[place];
    const before = this.samples[Math.max(place - over, 0)];
    if (!now || !before || now === before || now.at - before.at > 15 + over) return undefined;
    const [newer, older] = [value(now), value(before)];
    // A process that was replaced begins at 0 again.
    if (newer === undefined || older === undefined || newer < older) return undefined;
    return (newer - older) / (now.at - before.at);
  }

  rates(value: (sample: Sample) => number | undefined): (number | null)[] {
    return this.samples.map((_, place) => this.growth(value, place) ?? null);
  }

  values(value: (sample: Sample) => number | null | undefined): (number | null)[] {
    return this.samples.map((sample) => value(sample) ?? null);
  }

  times(): number[] {
    return this.samples.map(({ at }) => at);
  }
}
