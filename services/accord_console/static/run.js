// A run's page: curves from its figures, then live from its events.
import { plot } from "./chart.js";

const root = document.getElementById("run");
const base = `/runs/${encodeURIComponent(root.dataset.name)}`;
const log = document.getElementById("log");
const SHOWN = 40;
let steps = new Map(); // "iteration stage step" -> {iteration, stage, step, metrics}
let iterations = [];

const first = (metrics, names) => names.map((name) => metrics[name]).find((value) => Number.isFinite(value));
const order = ["prepare", "collect", "reward_model", "policy", "evaluate"];
const stageSteps = (stage) => [...steps.values()].filter((one) => one.stage === stage)
  .sort((a, b) => a.iteration - b.iteration || order.indexOf(a.stage) - order.indexOf(b.stage) || a.step - b.step);

const curves = (stage, wanted) => {
  const rows = stageSteps(stage);
  const series = wanted.map(([name, names]) => ({
    name,
    points: rows.map((row, index) => [index + 1, first(row.metrics, names)]).filter(([, value]) => value !== undefined),
  }));
  const marks = [];
  rows.forEach((row, index) => { if (row.iteration !== rows[index - 1]?.iteration) marks.push({ x: index + 1, label: `iteration ${row.iteration}` }); });
  const name = (at) => { const row = rows[at - 1]; return row ? `iteration ${row.iteration}, step ${row.step}` : ""; };
  return { series, marks, name };
};
const perIteration = (key) => {
  const rows = iterations.filter((row) => Number.isFinite(row[key]));
  const label = (number) => (number === 0 ? "base" : `iteration ${number}`);
  return {
    series: [{ name: key, points: rows.map((row) => [row.iteration, row[key]]), dots: rows.map((row) => row.iteration > 0 && !row.promoted) }],
    marks: (rows.length > 1 ? [rows[0], rows.at(-1)] : rows).map((row) => ({ x: row.iteration, label: label(row.iteration) })),
    name: label,
  };
};

const CHARTS = {
  heldout: () => perIteration("heldout_score"),
  reward: () => curves("policy", [["reward", ["reward"]], ["score", ["score", "score_mean"]]]),
  kl: () => ({ ...curves("policy", [["KL", ["kl_k1", "kl", "kl_nats"]]]), low: undefined }),
  lengths: () => curves("policy", [["tokens", ["response_tokens", "response_length", "length"]]]),
  accuracy: () => ({ ...curves("reward_model", [["accuracy", ["accuracy"]]]), low: 0, high: 1 }),
  throughput: () => curves("policy", [["samples per second", ["samples_per_second"]]]),
};
const plotAll = () => {
  for (const element of document.querySelectorAll("[data-chart]")) plot(element, CHARTS[element.dataset.chart]());
};
let planned = false;
const plotSoon = () => {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; plotAll(); });
};

const cell = (text, tag = "span") => { const made = document.createElement(tag); made.textContent = text; return made; };
const logEvent = (event) => {
  const line = document.createElement("li");
  line.dataset.sequence = event.sequence;
  line.append(cell(new Date(event.time * 1000).toLocaleTimeString(), "time"));
  line.append(cell(`${event.iteration ? `${event.iteration} · ` : ""}${event.stage.replaceAll("_", " ")}${event.total_steps ? ` ${event.step}/${event.total_steps}` : ""}`));
  const figures = ["reward", "score", "kl_k1", "loss", "accuracy"].filter((name) => Number.isFinite(event.metrics[name])).map((name) => `${name} ${Number(event.metrics[name].toPrecision(3))}`);
  line.append(cell([event.kind.replaceAll("_", " "), event.message, ...figures].filter(Boolean).join(" · ")));
  log.prepend(line);
  while (log.children.length > SHOWN) log.lastChild.remove();
};
const keep = (step) => steps.set(`${step.iteration} ${step.stage} ${step.step}`, step);

// Fetches the server-rendered parts again and replaces them.
const refresh = async () => {
  const reply = await fetch(base);
  if (!reply.ok) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  const open = [...document.querySelectorAll("#results details")].map((one) => one.open);
  for (const id of ["status", "results"]) document.getElementById(id).replaceWith(fresh.getElementById(id));
  document.querySelectorAll("#results details").forEach((one, index) => { if (index < open.length) one.open = open[index]; });
};
const load = async () => {
  const found = await (await fetch(`${base}/data`)).json();
  steps = new Map();
  found.steps.forEach(keep);
  iterations = found.iterations;
  log.replaceChildren();
  found.events.forEach(logEvent);
  plotAll();
  return found.sequence;
};

const follow = (after) => {
  const source = new EventSource(`${base}/events?after=${after}`);
  source.onmessage = async (message) => {
    const event = JSON.parse(message.data);
    logEvent(event);
    if (event.kind === "step") {
      keep({ iteration: event.iteration, stage: event.stage, step: event.step, metrics: event.metrics });
      const step = document.getElementById("step");
      if (step && event.total_steps) step.textContent = `${event.step}/${event.total_steps}`;
      plotSoon();
    } else {
      await refresh();
      if (event.kind === "iteration_finished") iterations = (await (await fetch(`${base}/data`)).json()).iterations;
      plotSoon();
    }
  };
  source.addEventListener("end", async () => { source.close(); await refresh(); root.dataset.live = "ended"; });
  source.addEventListener("trouble", (message) => {
    const line = document.createElement("li");
    line.append(cell(new Date().toLocaleTimeString(), "time"), cell("console"), cell(JSON.parse(message.data).message));
    log.prepend(line);
  });
  source.onopen = () => { root.dataset.live = "live"; };
};

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
follow(await load());
document.documentElement.dataset.ready = "true";
