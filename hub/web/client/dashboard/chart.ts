/** Charts of the last five minutes, in the colours of the page. */

import uPlot from "uplot";
import { clock, make, tell } from "./dom.js";
import { WINDOW } from "./figures.js";

export interface Line {
  name: string;
  /** The name of a custom property of the style sheet. */
  colour: string;
  fill?: boolean;
  dash?: boolean;
}

export interface ChartOptions {
  title: string;
  lines: Line[];
  format: (value: number) => string;
  /** Each line stands on the one before. */
  stacked?: boolean;
  /** The least that the highest mark is. */
  least?: number;
  id: string;
}

const HEIGHT = 176;
/** Seconds that are shown at least: a chart that has just begun is no line at its edge. */
const LEAST = 60;
const style = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart with its title, and beside it what the lines are now, or where the pointer is. */
export class Chart {
  readonly element: HTMLElement;
  readonly #options: ChartOptions;
  readonly #plot: HTMLElement;
  readonly #numbers: HTMLElement[];
  readonly #empty: HTMLElement;
  #chart: uPlot | undefined;
  #raw: (number | null)[][] = [];
  #times: number[] = [];

  constructor(options: ChartOptions) {
    this.#options = options;
    this.#plot = make("div", { class: "plot", role: "img", "aria-label": options.title });
    this.#empty = make("p", { class: "waiting" }, "The first figures come in a second.");
    this.#numbers = options.lines.map(() => make("b", {}, "–"));
    const legend = options.lines.map(({ name, colour, dash }, place) =>
      make(
        "span",
        { "data-colour": colour.slice(2), class: dash ? "dash" : undefined },
        name,
        " ",
        this.#numbers[place]!,
      ),
    );
    this.element = make(
      "section",
      { class: "chart", "data-testid": `chart-${options.id}`, "aria-label": options.title },
      make("div", { class: "head" }, make("h2", {}, options.title), make("p", { class: "legend" }, ...legend)),
      this.#plot,
      this.#empty,
    );
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
  }

  /** Take other colours: the theme has changed. */
  restyle(): void {
    this.#chart?.destroy();
    this.#chart = undefined;
    this.#draw();
  }

  show(times: number[], lines: (number | null)[][]): void {
    this.#times = times;
    this.#raw = lines;
    this.#empty.hidden = times.length > 0;
    this.#draw();
    this.#say(this.#chart?.cursor.idx ?? undefined);
  }

  #draw(): void {
    if (!this.#plot.clientWidth || !this.#times.length) return;
    const data = [this.#times, ...this.#shown()] as uPlot.AlignedData;
    if (this.#chart) this.#chart.setData(data);
    else this.#chart = new uPlot(this.#uplot(), data, this.#plot);
  }

  #shown(): (number | null)[][] {
    if (!this.#options.stacked) return this.#raw;
    const sums: number[] = this.#times.map(() => 0);
    // The last line is drawn first, and covers all: each one is the sum of itself and those after it.
    return [...this.#raw]
      .reverse()
      .map((line) => line.map((value, place) => (sums[place]! += value ?? 0)))
      .reverse();
  }

  #resize(): void {
    const width = this.#plot.clientWidth;
    if (!width) return;
    if (this.#chart) this.#chart.setSize({ width, height: HEIGHT });
    else this.#draw();
  }

  #say(place: number | undefined): void {
    const { lines, format, title } = this.#options;
    const at = place ?? this.#times.length - 1;
    lines.forEach((_, number) => {
      const value = this.#raw[number]?.[at];
      tell(this.#numbers[number]!, value === null || value === undefined ? "–" : format(value));
    });
    const said = lines.map(({ name }, number) => `${name} ${this.#numbers[number]!.textContent}`).join(", ");
    if (place === undefined) this.#plot.setAttribute("aria-label", `${title}: ${said}`);
  }

  #uplot(): uPlot.Options {
    const { lines, format, least = 1, stacked } = this.#options;
    const [soft, line, sans] = [style("--soft"), style("--line"), style("--sans")];
    const axis: uPlot.Axis = {
      stroke: soft,
      font: `11px ${sans}`,
      grid: { stroke: line, width: 1 },
      ticks: { show: false },
    };
    return {
      width: this.#plot.clientWidth,
      height: HEIGHT,
      padding: [8, 6, 0, 0],
      legend: { show: false },
      cursor: { y: false, sync: { key: "dashboard" }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: (_, min, max) => [max - Math.min(Math.max(max - min, LEAST), WINDOW), max] },
        y: { range: (_, __, max) => [0, Math.max((max || 0) * 1.15, least)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 26,
          space: 70,
          values: ({ scales: { x } }, splits) => {
            const end = x!.max! - (x!.max! - x!.min!) * 0.08; // a mark beyond it would be cut at the edge
            const length = splits.some((at) => at % 60) ? 8 : 5;
            return splits.map((at) => (at > end ? "" : clock(at).slice(0, length)));
          },
          incrs: [15, 30, 60, 120],
        },
        {
          ...axis,
          size: 58,
          gap: 6,
          space: 36,
          values: (_, splits) => splits.map((at) => format(at).replace(/\.0+ /, " ")),
        },
      ],
      series: [
        {},
        ...lines.map(({ name, colour, fill, dash }) => {
          const stroke = style(colour);
          return {
            label: name,
            stroke,
            width: 1.6,
            points: { show: false },
            ...(fill || stacked ? { fill: `${stroke}${stacked ? "55" : "22"}` } : {}),
            ...(dash ? { dash: [5, 4] } : {}),
          };
        }),
      ],
      // Each colour ends where the next line begins.
      bands: stacked ? lines.slice(1).map((_, place) => ({ series: [place + 1, place + 2] as [number, number] })) : [],
      hooks: { setCursor: [({ cursor }) => this.#say(cursor.idx ?? undefined)] },
    };
  }
}
