// Two small charts as inline SVG: bars over time and a line over steps. Colours come from the page's style sheet.

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 600;

function s(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

const picture = (height, label, ...children) =>
  s(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label, class: "ch", preserveAspectRatio: "none" },
    ...children,
  );

/** Bars. `bars`: [{value, title}]. */
export function barChart(bars, label, height = 120) {
  const top = Math.max(1, ...bars.map((bar) => bar.value));
  const step = WIDTH / Math.max(1, bars.length);
  const shapes = bars.map(({ value, title }, index) => {
    const tall = (value / top) * (height - 6);
    const width = Math.max(2, step * 0.72);
    const bar = s("rect", {
      x: index * step + (step - width) / 2,
      y: height - tall,
      width,
      height: tall,
      rx: Math.min(4, width / 4),
      class: "ch-bar",
    });
    bar.append(s("title", {}, title));
    return bar;
  });
  return picture(
    height,
    label,
    s("line", { x1: 0, x2: WIDTH, y1: height - 0.5, y2: height - 0.5, class: "ch-axis" }),
    ...shapes,
  );
}

/** A line. `points`: [[x, y]]; `range`: [low, high] of y, widened to hold the points; `mark`: a y to draw a level at. */
export function lineChart(points, label, { xMax, range = [Infinity, -Infinity], mark = null, height = 90 } = {}) {
  const ys = points.map(([, y]) => y);
  let low = Math.min(range[0], ...ys);
  let high = Math.max(range[1], ...ys);
  if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
  const x = (value) => (value / Math.max(1, xMax)) * WIDTH;
  const y = (value) => height - 5 - ((value - low) / (high - low)) * (height - 10);
  const parts = [];
  if (mark !== null) parts.push(s("line", { x1: 0, x2: WIDTH, y1: y(mark), y2: y(mark), class: "ch-level" }));
  const path = points
    .map(([px, py], index) => `${index === 0 ? "M" : "L"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`)
    .join("");
  if (points.length === 1) {
    const [[px, py]] = points;
    parts.push(s("line", { x1: x(px) - 8, x2: x(px) + 8, y1: y(py), y2: y(py), class: "ch-line" }));
  }
  if (points.length > 1) {
    parts.push(
      s("path", {
        d: `${path}L${x(points.at(-1)[0]).toFixed(1)} ${height}L${x(points[0][0]).toFixed(1)} ${height}Z`,
        class: "ch-area",
      }),
    );
    parts.push(s("path", { d: path, class: "ch-line" }));
  }
  return picture(height, label, ...parts);
}
