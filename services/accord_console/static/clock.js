// Counts a lease down from the remaining time that the service reported: the local clock may be wrong.
const shown = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

export const count = (element) => {
  if (!element) return;
  const end = performance.now() + 1000 * Number(element.dataset.seconds);
  const box = element.closest(".clock");
  const tick = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    element.textContent = left > 0 ? shown(left) : "over";
    box.classList.toggle("soon", left <= 60);
    if (left <= 0) box.title = "Your answer is still accepted, and marked late.";
    else setTimeout(tick, 1000);
  };
  tick();
};
