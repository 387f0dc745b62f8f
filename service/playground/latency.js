// Latency: where the milliseconds of the last call went, and what the last calls took.

const KEPT = 50; // calls
const NAMES = { parse: "parse", queue: "queue", pack: "pack", infer: "infer", rest: "rest of the server", network: "network" };

const calls = []; // {total, ms} or, of one that failed, null

/** Show one answered call: `elapsed` is what the browser measured. */
function showLatency(latency, elapsed) {
  const { parse, queue, pack, infer, total } = latency;
  const stages = { parse, queue, pack, infer, rest: Math.max(0, total - parse - queue - pack - infer) };
  const network = Math.max(0, elapsed - total);
  const segment = (name, ms) => el("span", { "--us": Math.ceil(1000 * ms), "--color": `var(--${name})`, title: `${NAMES[name]} ${format(ms)}` });
  const server = Object.entries(stages).map(([name, ms]) => segment(name, ms));
  const whole = Object.entries({ ...stages, network }).map(([name, ms]) => segment(name, ms));
  const line = (label, segments, ms) =>
    el("div", { class: "stack-line" }, el("span", {}, label), el("div", { class: "stack", "aria-hidden": "true" }, ...segments), el("span", {}, format(ms)));
  const legend = Object.entries({ ...stages, network }).map(([name, ms]) =>
    el("li", { "data-stage": name, "--color": `var(--${name})` }, el("span", {}, NAMES[name], " ", el("b", {}, format(ms)))),
  );
  $("bars").replaceChildren(
    line("Round trip", whole, total + network),
    line("Server", server, total),
    el("ul", { class: "legend", "aria-label": "Stages of this call" }, ...legend),
  );
  $("latency-note").textContent = "network: the browser's clock less the server's total";
  $("latency").hidden = false;
  keep(total);
}

function format(ms) {
  return `${ms.toFixed(ms < 1 ? 3 : ms < 10 ? 2 : 1)} ms`;
}

/** Remember a call's time in the server, or null of one that failed. */
function keep(total) {
  calls.push(total);
  if (calls.length > KEPT) calls.shift();
  const answered = calls.filter((ms) => ms !== null);
  if (!answered.length) return;
  const sorted = answered.toSorted((one, other) => one - other);
  const [p50, most] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted.at(-1)];
  const text = `Last ${calls.length}: server p50 ${format(p50)}, slowest ${format(most)}`;
  $("calls").replaceChildren(sparkline(p50, most, text), el("p", {}, "p50 ", el("b", {}, format(p50)), `, last ${calls.length}`));
}

function sparkline(p50, most, text) {
  const [width, height] = [KEPT - 1, 40];
  const x = (at) => KEPT - calls.length + at;
  const y = (ms) => (height - 2 - (height - 6) * (ms / most)).toFixed(2);
  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": text });
  const points = calls.flatMap((ms, at) => (ms === null ? [] : [`${x(at)},${y(ms)}`]));
  if (points.length === 1) points.unshift(`${width - 1},${points[0].split(",")[1]}`);
  svg.append(
    shape("line", { x1: 0, x2: width, y1: y(p50), y2: y(p50) }),
    shape("polyline", { points: points.join(" ") }),
    ...calls.flatMap((ms, at) => (ms === null ? [shape("line", { class: "failed", x1: x(at), x2: x(at), y1: height - 6, y2: height })] : [])),
  );
  return svg;
}
