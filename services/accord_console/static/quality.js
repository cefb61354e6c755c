// The quality page: curves over time, and a confirmation of actions that cannot be undone.
import { plot } from "./chart.js";

for (const element of document.querySelectorAll("[data-series]")) {
  const points = element.dataset.series.trim().split(/\s+/).filter(Boolean).map((pair) => pair.split(":").map(Number));
  const name = (at) => new Date(at * 1000).toLocaleDateString(undefined, { month: "short", day: "numeric" });
  const ends = points.length > 1 ? [points[0], points.at(-1)] : points;
  const whole = element.hasAttribute("data-share") ? { low: 0, high: 1 } : {};
  plot(element, { series: [{ name: "", points }], marks: ends.map(([x]) => ({ x, label: name(x) })), name, ...whole });
}
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
document.documentElement.dataset.ready = "true";
