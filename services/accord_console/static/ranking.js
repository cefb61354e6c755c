// Ranking by dragging and by keyboard. The order of the cards is the ranking; a card that is "tied" shares the rank of
// the one above. `ranks` is kept in the form's format: "2 0=1 3", places as shown, best first.
export const ranking = (list, ranks) => {
  const cards = () => [...list.children];
  let picked = 0; // how many were placed by number keys
  let pickedAt = 0;
  let touched = false; // the initial order is random and does not count until the annotator confirms it

  const write = () => {
    let text = "";
    let rank = 0;
    cards().forEach((card, index) => {
      if (index === 0) card.classList.remove("tied");
      const tied = card.classList.contains("tied");
      if (!tied) rank = index + 1;
      text += `${index === 0 ? "" : tied ? "=" : " "}${card.dataset.place}`;
      card.querySelector(".place").textContent = rank;
      card.querySelector(".tie").setAttribute("aria-pressed", String(tied));
      card.querySelector(".up").disabled = index === 0;
      card.querySelector(".down").disabled = index === cards().length - 1;
      card.setAttribute("aria-label", `Answer ${card.querySelector(".letter").textContent}, place ${rank}${tied ? ", as good as the answer above" : ""}`);
    });
    ranks.value = text;
  };
  const change = () => { touched = true; write(); ranks.dispatchEvent(new Event("change", { bubbles: true })); };
  const move = (card, by) => {
    const all = cards();
    const to = all.indexOf(card) + by;
    if (to < 0 || to >= all.length) return;
    if (by < 0) list.insertBefore(card, all[to]);
    else list.insertBefore(card, all[to].nextSibling);
    card.classList.remove("tied");
    change();
    card.focus();
  };
  const tie = (card) => {
    if (cards()[0] === card) return;
    card.classList.toggle("tied");
    change();
  };

  for (const card of cards()) {
    card.querySelector(".up").addEventListener("click", () => move(card, -1));
    card.querySelector(".down").addEventListener("click", () => move(card, 1));
    card.querySelector(".tie").addEventListener("click", () => tie(card));
    drag(card, list, () => { card.classList.remove("tied"); change(); });
  }
  write();

  return {
    get touched() { return touched; },
    // Restores an order in the format of `ranks`.
    restore(text) {
      for (const rank of text.split(" ")) {
        rank.split("=").forEach((place, index) => {
          const card = cards().find((one) => one.dataset.place === place);
          if (!card) return;
          list.append(card);
          card.classList.toggle("tied", index > 0);
        });
      }
      change();
    },
    // Digits name the answers by letter (A is 1), best first; after a pause, or after all, they start again.
    pick(number) {
      const card = cards().find((one) => Number(one.dataset.place) === number);
      if (!card) return false;
      if (picked >= cards().length || performance.now() - pickedAt > 4000) picked = 0;
      pickedAt = performance.now();
      if (cards().indexOf(card) < picked) return true; // placed already
      list.insertBefore(card, cards()[picked]);
      card.classList.remove("tied");
      picked += 1;
      change();
      card.focus({ preventScroll: true });
      return true;
    },
    key(event) {
      const card = event.target.closest?.(".answer");
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (by && card) {
        if (event.shiftKey) move(card, by);
        else cards()[cards().indexOf(card) + by]?.focus();
        return true;
      }
      if (by && document.activeElement === document.body) { cards()[0].focus(); return true; }
      if (event.key === "=" && card) { tie(card); return true; }
      return false;
    },
  };
};

// The card follows the pointer; the others change places as it passes their middle. The dragged card itself is never
// moved in the tree: that would end the pointer's capture.
const drag = (card, list, done) => {
  const grip = card.querySelector(".grip");
  grip.addEventListener("pointerdown", (start) => {
    if (start.button !== 0) return;
    start.preventDefault();
    grip.setPointerCapture(start.pointerId);
    card.classList.add("lifted");
    let from = start.clientY + scrollY;
    const place = (event) => { card.style.transform = `translateY(${event.clientY + scrollY - from}px)`; };
    const middle = (other) => { const box = other.getBoundingClientRect(); return box.top + box.height / 2; };
    const follow = (event) => {
      place(event);
      for (;;) {
        const box = card.getBoundingClientRect();
        const before = card.previousElementSibling;
        const after = card.nextElementSibling;
        const top = card.offsetTop;
        if (before && box.top < middle(before)) list.insertBefore(before, card.nextElementSibling);
        else if (after && box.bottom > middle(after)) list.insertBefore(after, card);
        else break;
        from += card.offsetTop - top;
        place(event);
      }
    };
    const drop = () => {
      grip.removeEventListener("pointermove", follow);
      grip.removeEventListener("lostpointercapture", drop);
      card.classList.remove("lifted");
      card.style.transform = "";
      done();
    };
    grip.addEventListener("pointermove", follow);
    grip.addEventListener("lostpointercapture", drop);
  });
};
