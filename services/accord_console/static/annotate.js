// The annotator's task: choosing, ranking, keys, time left, and submitting once. Without this script the form still works
// for comparisons and ratings; nothing here decides who answers or what is shown.
import { ranking } from "./ranking.js";
import { count } from "./clock.js";
import { draft } from "./draft.js";

const form = document.getElementById("sheet");
const kind = form.dataset.kind;
const problem = document.getElementById("problem");
const order = kind === "ranking" ? ranking(document.getElementById("answers"), form.elements.ranks) : null;
const unsaved = draft(form, order);
let sending = false;
let warned = false;

const toggle = (button, section, focus) => {
  section.hidden = !section.hidden;
  button.setAttribute("aria-expanded", String(!section.hidden));
  if (!section.hidden) focus().focus();
};
const commentToggle = document.getElementById("comment-toggle");
const flagToggle = document.getElementById("flag-toggle");
const remark = document.getElementById("remark");
const flagging = document.getElementById("flagging");
commentToggle.addEventListener("click", () => toggle(commentToggle, remark, () => form.elements.comment));
flagToggle.addEventListener("click", () => toggle(flagToggle, flagging, () => flagging.querySelector("input")));
if (form.elements.comment.value) {
  remark.hidden = false;
  commentToggle.setAttribute("aria-expanded", "true");
}

const report = (message) => {
  problem.textContent = message;
  problem.hidden = !message;
  if (message) problem.scrollIntoView({ block: "nearest" });
};

// Any change clears the message.
form.addEventListener("change", () => report(""));

// The reason why the form cannot be saved yet; empty if it can.
const missing = () => {
  if (kind === "comparison" && !form.elements.choice.value) return "Choose the better answer, or that they are equally good.";
  if (order && !order.touched && !warned) {
    warned = true;
    return "You have not changed the order, and it was random. Reorder the answers, or save again to confirm it.";
  }
  if (kind === "rating" && !form.elements.value.value) return "Rate the answer from 1 to 5.";
  return "";
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (sending) return;
  const action = event.submitter?.getAttribute("formaction") || form.getAttribute("action");
  const wrong = action.endsWith("/answer") ? missing() : action.endsWith("/flag") && !form.elements.reason.value ? "Choose what is wrong with this task." : "";
  report(wrong);
  if (wrong) return;
  sending = true;
  form.classList.add("sending");
  try {
    const reply = await fetch(action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const result = await reply.json();
    if (reply.ok) { unsaved.forget(); return location.assign(result.next); }
    report(result.error);
  } catch {
    report("The console cannot be reached. Nothing is lost; please try again.");
  }
  sending = false;
  form.classList.remove("sending");
});

const check = (input) => { input.checked = true; input.dispatchEvent(new Event("change", { bubbles: true })); };
if (kind === "comparison") {
  for (const card of form.querySelectorAll(".answer")) {
    card.addEventListener("click", (event) => {
      if (event.target.closest("a, label, fieldset, input") || String(getSelection())) return;
      check(card.querySelector("input[name=choice]"));
    });
  }
}

const press = (id) => form.requestSubmit(document.getElementById(id));
const choose = (name, value, focus = false) => {
  const found = form.querySelector(`input[name="${name}"][value="${CSS.escape(value)}"]`);
  if (found) check(found);
  if (focus) found?.focus();
  return Boolean(found);
};
// A digit rates the focused criterion; without one, it chooses, ranks or rates.
const digit = (number) => {
  const criterion = document.activeElement.name ?? "";
  if (criterion.startsWith("rate-")) return choose(criterion, String(number), true);
  if (!flagging.hidden) return choose("reason", form.querySelectorAll("input[name=reason]")[number - 1]?.value ?? "");
  if (kind === "comparison") return choose("choice", String(number - 1));
  if (kind === "rating") return choose("value", String(number));
  return order.pick(number - 1);
};

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("textarea, input[type=number], input[type=text]");
  if (event.key === "Escape") {
    if (!flagging.hidden) toggle(flagToggle, flagging, () => form);
    else document.activeElement.blur();
    return;
  }
  if (typing) {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); press("save"); }
    return;
  }
  const key = event.key.toLowerCase();
  const done = () => event.preventDefault();
  if (!event.target.matches("input") && order?.key(event)) return done();
  if (/^[1-9]$/.test(key) && digit(Number(key))) return done();
  if (event.key === "Enter" && !event.target.closest("a, button")) { done(); return press(flagging.hidden ? "save" : "send-flag"); }
  if (event.repeat) return;
  if (key === "t" && choose("choice", "tie")) return done();
  if (key === "s") { done(); return press("skip"); }
  if (key === "c") { done(); return commentToggle.click(); }
  if (key === "f") { done(); return flagToggle.click(); }
  if (key === "u" && !document.getElementById("undo").disabled) { done(); return press("undo"); }
});

count(document.getElementById("clock"));
// A page restored from the browser's cache (back button) may show an answered task: reload it.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.documentElement.dataset.ready = "true";
