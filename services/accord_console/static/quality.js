// The quality page: curves over time, and a question before what cannot be undone.
import { draw } from "./chart.js";

for (const element of document.querySelectorAll("[data-series]")) {
  const points = element.dataset.series.trim().split(/\s+/).filter(Boolean).map((pair) => pair.split(":").map(Number));
  const name = (at) => new Date(at * 1000).toLocaleDateString();
  draw(element, { series: [{ name: "", points }], marks: points.length ? [{ x: points[0][0], label: name(points[0][0]) }] : [], name });
}
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
document.documentElement.dataset.ready = "true";
