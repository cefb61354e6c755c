// Keeps unsaved choices, rankings and comments across a reload, only in this tab and for this lease.
const KEY = "accord.draft";
const HIDDEN = new Set(["csrf", "slip"]);

const kept = () => {
  try { return JSON.parse(sessionStorage.getItem(KEY)) ?? {}; } catch { return {}; }
};

// Restores the form from the draft and saves its changes. `order`: the ranking, if the task is one.
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
    try { sessionStorage.setItem(KEY, JSON.stringify({ lease, touched: Boolean(order?.touched), fields })); } catch { /* the storage is full or forbidden: no draft */ }
  };
  form.addEventListener("input", keep);
  form.addEventListener("change", keep);
  return { forget: () => { try { sessionStorage.removeItem(KEY); } catch { /* the same */ } } };
};
