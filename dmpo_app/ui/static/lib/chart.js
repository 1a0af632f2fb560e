// @ts-check
// Two small charts as inline SVG: bars over time and a line over steps. Colours come from the page's style sheet.

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 600;

/** @typedef {[x: number, y: number]} Point */
/** @typedef {{ value: number, title: string }} Bar */

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {Array<string | Node>} children
 */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * @param {number} height
 * @param {string} label
 * @param {Node[]} shapes
 */
const drawing = (height, label, shapes) =>
  svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: "img",
      "aria-label": label,
      class: "ch",
      preserveAspectRatio: "none",
    },
    ...shapes,
  );

/**
 * @param {number} y
 * @param {string} name of the style
 */
const horizontal = (y, name) => svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: name });

/**
 * @param {Bar[]} bars
 * @param {string} label
 */
export function barChart(bars, label, height = 120) {
  const top = Math.max(1, ...bars.map((bar) => bar.value));
  const step = WIDTH / Math.max(1, bars.length);
  const width = Math.max(2, step * 0.72);
  const shapes = bars.map(({ value, title }, index) => {
    const barHeight = (value / top) * (height - 6);
    const place = { x: index * step + (step - width) / 2, y: height - barHeight, width, height: barHeight };
    return svg("rect", { ...place, rx: Math.min(4, width / 4), class: "ch-bar" }, svg("title", {}, title));
  });
  return drawing(height, label, [horizontal(height - 0.5, "ch-axis"), ...shapes]);
}

/**
 * @typedef {object} LineOptions
 * @property {[low: number, high: number]} [range] of y, widened to hold the points
 * @property {number | null} [mark] a y to draw a level at
 * @property {number} [height]
 *
 * @param {Point[]} points
 * @param {string} label
 * @param {LineOptions & { xMax: number }} options
 */
export function lineChart(points, label, { xMax, range = [Infinity, -Infinity], mark = null, height = 90 }) {
  const ys = points.map(([, y]) => y);
  let low = Math.min(range[0], ...ys);
  let high = Math.max(range[1], ...ys);
  if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
  /** @param {Point} point @returns {Point} */
  const place = ([x, y]) => [(x / Math.max(1, xMax)) * WIDTH, height - 5 - ((y - low) / (high - low)) * (height - 10)];
  const level = mark === null ? [] : [horizontal(place([0, mark])[1], "ch-level")];
  return drawing(height, label, [...level, ...curve(points.map(place), height)]);
}

/**
 * The line through points of the drawing and the area under it; a dash where there is only one point.
 *
 * @param {Point[]} places
 * @param {number} height
 */
function curve(places, height) {
  if (places.length === 0) return [];
  const [[x, y]] = places;
  if (places.length === 1) return [svg("line", { x1: x - 8, x2: x + 8, y1: y, y2: y, class: "ch-line" })];
  const path = places.map(([px, py], index) => `${index === 0 ? "M" : "L"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
  const end = places[places.length - 1][0];
  const area = `${path}L${end.toFixed(1)} ${height}L${x.toFixed(1)} ${height}Z`;
  return [svg("path", { d: area, class: "ch-area" }), svg("path", { d: path, class: "ch-line" })];
}
