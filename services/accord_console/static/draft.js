// What was chosen, ranked and typed on a task and not saved yet outlives a reload: in this tab alone, for this lease alone.
const KEY = "accord.draft";
const HIDDEN = new Set(["csrf", "slip"]);

const kept = () => {
  try { return JSON.parse(sessionStorage.getItem(KEY)) ?? {}; } catch { return {}; }
};

// Brings back what the form held and keeps what it will hold. `order`: the ranking, if it is one.
export const draft = (form, order) => {
  const { lease } = form.dataset;
  const found = kept();
  if (found.lease === lease) {
    for (const [name, value] of found.fields) {
      if (name === "ranks") { if (found.touched) order?.restore(value); continue; }
      const inputs = [...form.querySelectorAll(`[name="${CSS.escape(name)}"]`)];
      if (inputs[0]?.type !== "radio") { if (inputs[0]) inputs[0].value = value; continue; }
      const chosen = inputs.find((input) => input.value === value);
      if (chosen) chosen.checked = true;
    }
  }
  const keep = () => {
    const fields = [...new FormData(form)].filter(([name]) => !HIDDEN.has(name));
    try { sessionStorage.setItem(KEY, JSON.stringify({ lease, touched: Boolean(order?.touched), fields })); } catch { /* a full or forbidden store: nothing is kept */ }
  };
  form.addEventListener("input", keep);
  form.addEventListener("change", keep);
  return { forget: () => { try { sessionStorage.removeItem(KEY); } catch { /* the same */ } } };
};
