// Line charts as SVG, built from nodes and numbers; data never becomes markup.
const NS = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 150, LEFT = 38, RIGHT = 8, TOP = 8, BOTTOM = 22;

const node = (name, attributes, text) => {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

// Three or four round numbers that span the values.
const ticks = (low, high) => {
  if (low === high) { const around = Math.abs(low) / 2 || 0.5; [low, high] = [low - around, high + around]; }
  const rough = (high - low) / 3 || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.floor(low / step) * step; at < high + step * 0.999; at += step) found.push(at);
  return found;
};
export const figure = (value) => {
  const size = Math.abs(value);
  return size >= 1000 ? Math.round(value).toLocaleString() : String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
};

// `series`: [{name, points: [[x, y], ...], dots: [bool hollow, ...]}]; `marks`: [{x, label}]; `name(x)` labels a position.
export const plot = (figureElement, { series, marks = [], low, high, name = String }) => {
  const container = figureElement.querySelector(".plot");
  const shown = series.filter((one) => one.points.length);
  if (!shown.length) return;
  const all = shown.flatMap((one) => one.points);
  const xs = all.map(([x]) => x);
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const values = all.map(([, y]) => y);
  const marksY = ticks(low ?? Math.min(...values), high ?? Math.max(...values));
  const [bottom, top] = [marksY[0], marksY.at(-1)];
  const x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (last === first ? 0.5 : (value - first) / (last - first));
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - bottom) / (top - bottom || 1));
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": figureElement.querySelector("figcaption").textContent });
  for (const tick of marksY) {
    svg.append(node("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(node("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" }, figure(tick)));
  }
  marks.forEach(({ x: at, label }, index) => {
    const place = x(at);
    if (index) svg.append(node("line", { class: "mark", x1: place, x2: place, y1: TOP, y2: HEIGHT - BOTTOM }));
    // A label near the right edge is right-aligned.
    const last = place > WIDTH - 70;
    svg.append(node("text", { x: last ? WIDTH - RIGHT : place + (marks.length > 1 ? 2 : 0), y: HEIGHT - 5, "text-anchor": last ? "end" : "start" }, label));
  });
  shown.forEach((one, index) => {
    const path = one.points.map(([px, py], at) => `${at ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
    svg.append(node("path", { class: `line k${index}`, d: path }));
    if (one.points.length === 1 || one.dots)
      one.points.forEach(([px, py], at) => svg.append(node("circle", { class: `dot k${index}${one.dots?.[at] ? " hollow" : ""}`, cx: x(px), cy: y(py), r: 4 })));
  });
  const caption = figureElement.querySelector("figcaption");
  const reading = caption.querySelector(".reading") ?? caption.appendChild(document.createElement("span"));
  reading.className = "reading";
  const read = (at) => {
    const parts = shown.map((one, index) => {
      const point = at === undefined ? one.points.at(-1) : one.points.reduce((best, next) => (Math.abs(next[0] - at) < Math.abs(best[0] - at) ? next : best));
      const part = document.createElement("span");
      part.className = shown.length > 1 ? `t${index}` : "";
      part.textContent = `${shown.length > 1 ? `${one.name} ` : ""}${figure(point[1])} `;
      return part;
    });
    reading.replaceChildren(...parts, at === undefined ? "" : name(Math.round(at)));
  };
  read();
  const hair = node("line", { class: "hover", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(hair);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const part = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    const at = first + Math.max(0, Math.min(1, part)) * (last - first);
    hair.setAttribute("x1", x(at));
    hair.setAttribute("x2", x(at));
    hair.setAttribute("visibility", "visible");
    read(at);
  });
  svg.addEventListener("pointerleave", () => { hair.setAttribute("visibility", "hidden"); read(); });
  container.replaceChildren(svg);
};
